package simulator

import (
	"cmp"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// query is the small part of KQL that the simulator understands:
//
//	Table | where Column == "x" and Other > 5 | project A, B | take N | count
//
// with == != =~ contains startswith has < <= > >= in ( … ), and/or without
// parentheses, strings, numbers, true, false, datetime(…) and ago(…).
type query struct {
	table  table
	stages []stage
}

// stage is one step after a bar. Exactly one of its fields is used.
type stage struct {
	where   [][]condition // any of all of
	project []int         // places in the columns before it
	take    int           // -1 when it is none
	count   bool
}

type condition struct {
	column int
	op     string
	values []any
}

var kqlWords = regexp.MustCompile(`^(?:([A-Za-z_][A-Za-z0-9_]*)|("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')|(-?\d+(?:\.\d+)?[a-z]*)|(==|!=|=~|<=|>=|[<>|,()]))`)

type kqlWord struct {
	kind int // 1 name, 2 string, 3 number, 4 mark
	text string
}

// maxQuery bounds the length of a query.
const maxQuery = 64 << 10

func kqlLex(s string) ([]kqlWord, error) {
	if len(s) > maxQuery {
		return nil, fmt.Errorf("the query is longer than %d characters", maxQuery)
	}
	var out []kqlWord
	for s = strings.TrimSpace(s); s != ""; s = strings.TrimSpace(s) {
		if rest, ok := strings.CutPrefix(s, "//"); ok { // a comment
			_, s, _ = strings.Cut(rest, "\n")
			continue
		}
		m := kqlWords.FindStringSubmatch(s)
		if m == nil {
			return nil, fmt.Errorf("syntax error at '%.20s'", s)
		}
		for kind := 1; kind <= 4; kind++ {
			if m[kind] != "" {
				out = append(out, kqlWord{kind, m[kind]})
			}
		}
		s = s[len(m[0]):]
	}
	return out, nil
}

// queryParser walks over the words.
type queryParser struct {
	words   []kqlWord
	now     time.Time
	columns []column // at this stage
}

func (p *queryParser) next() kqlWord {
	if len(p.words) == 0 {
		return kqlWord{}
	}
	w := p.words[0]
	p.words = p.words[1:]
	return w
}

func (p *queryParser) is(text string) bool {
	return len(p.words) > 0 && strings.EqualFold(p.words[0].text, text) && p.words[0].kind != 2
}

func (p *queryParser) take(text string) bool {
	if p.is(text) {
		p.words = p.words[1:]
		return true
	}
	return false
}

// parseQuery reads a query. Its errors are for the caller of the API.
func parseQuery(text string, now time.Time) (*query, error) {
	words, err := kqlLex(strings.TrimRight(strings.TrimSpace(text), ";"))
	if err != nil {
		return nil, err
	}
	p := &queryParser{words: words, now: now}
	name := p.next()
	t, ok := huntingTables[name.text]
	if !ok || name.kind != 1 {
		return nil, fmt.Errorf("'%.40s' is not a table of the simulator", name.text)
	}
	q := &query{table: t}
	p.columns = t.columns
	for len(p.words) > 0 {
		if !p.take("|") {
			return nil, fmt.Errorf("expected '|' before '%.40s'", p.words[0].text)
		}
		s, err := p.stage()
		if err != nil {
			return nil, err
		}
		q.stages = append(q.stages, s)
	}
	return q, nil
}

func (p *queryParser) stage() (stage, error) {
	s := stage{take: -1}
	switch op := p.next(); strings.ToLower(op.text) {
	case "where":
		var err error
		s.where, err = p.where()
		return s, err
	case "project":
		var chosen []column
		for {
			i, err := p.column()
			if err != nil {
				return s, err
			}
			s.project = append(s.project, i)
			chosen = append(chosen, p.columns[i])
			if !p.take(",") {
				p.columns = chosen
				return s, nil
			}
		}
	case "take", "limit":
		n := p.next()
		v, err := strconv.Atoi(n.text)
		if err != nil || v < 0 {
			return s, fmt.Errorf("'%.40s' is not a number of rows", n.text)
		}
		s.take = v
		return s, nil
	case "count":
		s.count = true
		p.columns = []column{{"Count", "Int64"}}
		return s, nil
	default:
		return s, fmt.Errorf("the operator '%.40s' is not one that the simulator knows (where, project, take, limit, count)", op.text)
	}
}

func (p *queryParser) column() (int, error) {
	w := p.next()
	for i, c := range p.columns {
		if w.kind == 1 && c.name == w.text {
			return i, nil
		}
	}
	return 0, fmt.Errorf("'project' or 'where' operator: failed to resolve column named '%.40s'", w.text)
}

func (p *queryParser) where() ([][]condition, error) {
	groups := [][]condition{nil}
	for {
		c, err := p.condition()
		if err != nil {
			return nil, err
		}
		last := len(groups) - 1
		groups[last] = append(groups[last], c)
		switch {
		case p.take("and"):
		case p.take("or"):
			groups = append(groups, nil)
		default:
			return groups, nil
		}
	}
}

func (p *queryParser) condition() (condition, error) {
	column, err := p.column()
	if err != nil {
		return condition{}, err
	}
	c := condition{column: column, op: strings.ToLower(p.next().text)}
	switch c.op {
	case "==", "!=", "=~", "contains", "startswith", "has", "<", "<=", ">", ">=":
		v, err := p.value()
		c.values = []any{v}
		return c, err
	case "in":
		if !p.take("(") {
			return c, errors.New("expected '(' after in")
		}
		for {
			v, err := p.value()
			if err != nil {
				return c, err
			}
			c.values = append(c.values, v)
			if p.take(")") {
				return c, nil
			}
			if !p.take(",") {
				return c, errors.New("expected ',' or ')' in the list after in")
			}
		}
	}
	return c, fmt.Errorf("'%.40s' is not a comparison that the simulator knows", c.op)
}

// value reads a literal: string, number, true, false, datetime(…) or ago(…).
func (p *queryParser) value() (any, error) {
	w := p.next()
	switch {
	case w.kind == 2:
		return strings.NewReplacer(`\\`, `\`, `\"`, `"`, `\'`, `'`).Replace(w.text[1 : len(w.text)-1]), nil
	case w.kind == 3:
		f, err := strconv.ParseFloat(w.text, 64)
		if err != nil {
			return nil, fmt.Errorf("'%.40s' is not a number", w.text)
		}
		return f, nil
	case strings.EqualFold(w.text, "true"), strings.EqualFold(w.text, "false"):
		return strings.EqualFold(w.text, "true"), nil
	case strings.EqualFold(w.text, "ago") && p.take("("):
		d, err := kqlDuration(p.next().text)
		if err != nil || !p.take(")") {
			return nil, errors.New("ago() takes a timespan such as 7d")
		}
		return p.now.Add(-d), nil
	case strings.EqualFold(w.text, "datetime") && p.take("("):
		arg := p.next()
		t, ok := parseTime(strings.Trim(arg.text, `"'`))
		if !ok || !p.take(")") {
			return nil, errors.New("datetime() takes a quoted time such as datetime('2026-01-31')")
		}
		return t, nil
	}
	return nil, fmt.Errorf("'%.40s' is not a value", w.text)
}

// kqlDuration reads 7d, 12h, 30m or 90s, up to ten years.
func kqlDuration(s string) (time.Duration, error) {
	if s == "" {
		return 0, errors.New("no timespan")
	}
	unit, ok := map[byte]time.Duration{'d': day, 'h': time.Hour, 'm': time.Minute, 's': time.Second}[s[len(s)-1]]
	n, err := strconv.Atoi(s[:len(s)-1])
	if err != nil || !ok || n < 0 || time.Duration(n) > 3650*day/unit {
		return 0, fmt.Errorf("'%.40s' is not a timespan", s)
	}
	return time.Duration(n) * unit, nil
}

// columns are those of the result.
func (q *query) columns() []column {
	cols := q.table.columns
	for _, s := range q.stages {
		switch {
		case s.count:
			cols = []column{{"Count", "Int64"}}
		case s.project != nil:
			next := make([]column, len(s.project))
			for i, p := range s.project {
				next[i] = cols[p]
			}
			cols = next
		}
	}
	return cols
}

var errEnough = errors.New("enough rows")

// run gives the rows of the result one by one, at most maxHuntingRows.
func (q *query) run(f *fleet, yield func(members) error) error {
	cols, sent := q.columns(), 0
	sink := func(row []any) error {
		if sent++; sent > maxHuntingRows {
			return errEnough
		}
		out := make(members, len(cols))
		for i, c := range cols {
			v := row[i]
			if t, ok := v.(time.Time); ok {
				v = at(t)
			}
			out[i] = member{c.name, v}
		}
		return yield(out)
	}
	// The stages are put in front of each other from the last to the first;
	// finish lets counting stages send what they counted.
	var finish []func() error
	for i := len(q.stages) - 1; i >= 0; i-- {
		var done func() error
		sink, done = q.stages[i].into(sink)
		finish = append(finish, done)
	}
	machines, alerts := snapshot(f, &f.machines), snapshot(f, &f.alerts)
	for i := range q.table.rows(f) {
		if err := sink(q.table.row(f, machines, alerts, i)); errors.Is(err, errEnough) {
			break
		} else if err != nil {
			return err
		}
	}
	for i := len(finish) - 1; i >= 0; i-- {
		if err := finish[i](); err != nil && !errors.Is(err, errEnough) {
			return err
		}
	}
	return nil
}

// into puts a stage in front of a sink.
func (s stage) into(next func([]any) error) (step func([]any) error, done func() error) {
	nothing := func() error { return nil }
	switch {
	case s.where != nil:
		return func(row []any) error {
			if s.matches(row) {
				return next(row)
			}
			return nil
		}, nothing
	case s.project != nil:
		return func(row []any) error {
			out := make([]any, len(s.project))
			for i, p := range s.project {
				out[i] = row[p]
			}
			return next(out)
		}, nothing
	case s.count:
		n := 0
		return func([]any) error { n++; return nil }, func() error { return next([]any{n}) }
	}
	left := s.take
	return func(row []any) error {
		if left == 0 {
			return errEnough
		}
		left--
		return next(row)
	}, nothing
}

func (s stage) matches(row []any) bool {
	for _, all := range s.where {
		ok := true
		for _, c := range all {
			ok = ok && c.holds(row[c.column])
		}
		if ok {
			return true
		}
	}
	return false
}

func (c condition) holds(v any) bool {
	text, isText := v.(string)
	for _, want := range c.values {
		if w, ok := want.(string); ok && isText {
			if holdsText(c.op, text, w) {
				return true
			}
			continue
		}
		if n, ok := compareValues(v, want); ok && holdsOrder(c.op, n) {
			return true
		}
	}
	return false
}

func holdsText(op, v, want string) bool {
	switch op {
	case "=~":
		return strings.EqualFold(v, want)
	case "contains", "has": // in KQL both ignore case
		return strings.Contains(strings.ToLower(v), strings.ToLower(want))
	case "startswith":
		return strings.HasPrefix(strings.ToLower(v), strings.ToLower(want))
	}
	return holdsOrder(op, cmp.Compare(v, want))
}

func holdsOrder(op string, n int) bool {
	switch op {
	case "==", "in":
		return n == 0
	case "!=":
		return n != 0
	case "<":
		return n < 0
	case "<=":
		return n <= 0
	case ">":
		return n > 0
	case ">=":
		return n >= 0
	}
	return false
}

// compareValues compares values of a table with literals; false for different kinds.
func compareValues(v, want any) (int, bool) {
	if n, ok := v.(int); ok {
		v = float64(n)
	}
	return compare(v, want)
}
