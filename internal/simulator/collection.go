package simulator

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// collection is what the pages say about a list.
type collection struct {
	name   string // in @odata.context
	maxTop int    // 10,000 when 0
	page   int    // rows of a page without $top; Config.PageSize when 0
	// export lists take the parameter pageSize and page by it, 50,000 rows by
	// default and 200,000 at most.
	export bool
	// noLink lists have no next link: callers page with $top and $skip.
	noLink bool
}

// maxExportPage is the documented upper bound of pageSize.
const maxExportPage = 200_000

// hosts are those that Microsoft's answers name in links and contexts, which
// are not those that were asked.
var hosts = map[string]string{
	"mde":   "https://api.securitycenter.microsoft.com",
	"xdr":   "https://api.security.microsoft.com",
	"graph": "https://graph.microsoft.com",
}

func (c *call) metadata() string {
	base := hosts[string(c.op.Service)]
	if c.op.Service == "graph" {
		return base + "/v1.0/$metadata#"
	}
	return base + "/api/$metadata#"
}

// page is the envelope of a list.
type page struct {
	Context  string          `json:"@odata.context"`
	Count    *int            `json:"@odata.count,omitempty"`
	Value    []any           `json:"value"`
	NextLink json.RawMessage `json:"@odata.nextLink,omitempty"`
}

// list answers with the rows of a collection: filtered, ordered, cut to a page.
func list[T any](col collection, rows func(*call) ([]T, error)) handler {
	s := schemaOf[T]()
	if col.maxTop == 0 {
		col.maxTop = 10_000
	}
	return func(c *call) (reply, error) {
		o := &c.options
		if p := o.check(s); p != nil {
			return reply{}, p
		}
		if o.top > col.maxTop {
			return reply{}, odataProblem("The query specified in the URI is not valid. The limit of '%d' for Top query has been exceeded. The value from the incoming request is '%d'.", col.maxTop, o.top)
		}
		size, p := col.size(c)
		if p != nil {
			return reply{}, p
		}
		all, err := rows(c)
		if err != nil {
			return reply{}, err
		}
		all = where(all, o.filter, s)
		if c.count {
			return reply{text: strconv.Itoa(len(all)), counted: true}, nil
		}
		all = sorted(all, o.orders, s)
		from := o.skip
		if o.skiptoken != "" {
			if from, p = c.readSkiptoken(o.skiptoken); p != nil {
				return reply{}, p
			}
		}
		from = min(from, len(all))
		to := min(from+size, len(all))
		out := page{Context: c.metadata() + col.name + selection(o.selects), Value: make([]any, 0, to-from)}
		if o.count {
			total := len(all)
			out.Count = &total
		}
		for _, row := range all[from:to] {
			out.Value = append(out.Value, shape(row, o, s))
		}
		// Graph pages through $top; the older APIs give no link with it.
		if to < len(all) && !col.noLink && (o.top < 0 || c.op.Service == "graph") && size > 0 {
			out.NextLink = c.nextLink(to)
		}
		return reply{body: out}, nil
	}
}

// size is the number of rows that an answer may have.
func (col collection) size(c *call) (int, *problem) {
	if c.options.top >= 0 {
		return c.options.top, nil
	}
	size := col.page
	if size == 0 {
		size = c.sim.cfg.PageSize
	}
	if !col.export {
		return size, nil
	}
	text, ok := c.options.custom["pagesize"]
	if !ok {
		return size, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 || n > maxExportPage {
		return 0, invalidInput("pageSize '%s' is not a number from 1 to %d.", text, maxExportPage)
	}
	return n, nil
}

func where[T any](rows []T, filter *expr, s *schema) []T {
	if filter == nil {
		return rows
	}
	var out []T
	for i := range rows {
		if (environment{schema: s, row: reflect.ValueOf(&rows[i]).Elem()}).holds(filter) {
			out = append(out, rows[i])
		}
	}
	return out
}

func sorted[T any](rows []T, orders []order, s *schema) []T {
	if len(orders) == 0 {
		return rows
	}
	rows = slices.Clone(rows)
	slices.SortStableFunc(rows, func(a, b T) int {
		for _, o := range orders {
			p, _ := s.find(o.name)
			x, y := valueOf(reflect.ValueOf(a), p), valueOf(reflect.ValueOf(b), p)
			n, ok := compare(x, y)
			if !ok { // null comes before everything
				n = toInt(x != nil) - toInt(y != nil)
			}
			if o.descending {
				n = -n
			}
			if n != 0 {
				return n
			}
		}
		return 0
	})
	return rows
}

func selection(selects []string) string {
	if len(selects) == 0 || slices.Contains(selects, "*") {
		return ""
	}
	return "(" + strings.Join(selects, ",") + ")"
}

// shape is a row as $select and $expand leave it.
func shape[T any](row T, o *options, s *schema) any {
	v := reflect.ValueOf(&row).Elem()
	for _, p := range s.properties {
		if p.expand && !slices.ContainsFunc(o.expands, func(n string) bool { return strings.EqualFold(n, p.name) }) {
			v.Field(p.index).Set(reflect.MakeSlice(v.Field(p.index).Type(), 0, 0))
		}
	}
	if len(o.selects) == 0 || slices.Contains(o.selects, "*") {
		return row
	}
	var chosen members
	for _, p := range s.properties {
		if slices.ContainsFunc(o.selects, func(n string) bool { return strings.EqualFold(n, p.name) }) {
			chosen = append(chosen, member{p.name, v.Field(p.index).Interface()})
		}
	}
	return chosen
}

// members is a JSON object with its order.
type members []member

type member struct {
	name  string
	value any
}

// MarshalJSON implements json.Marshaler.
func (m members) MarshalJSON() ([]byte, error) {
	b := bytes.NewBufferString("{")
	for i, one := range m {
		if i > 0 {
			b.WriteByte(',')
		}
		name, err := marshalPlain(one.name)
		if err != nil {
			return nil, err
		}
		value, err := marshalPlain(one.value)
		if err != nil {
			return nil, err
		}
		b.Write(name)
		b.WriteByte(':')
		b.Write(value)
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// one answers with a single entity.
func one[T any](name string, get func(*call) (T, error)) handler {
	return func(c *call) (reply, error) {
		row, err := get(c)
		if err != nil {
			return reply{}, err
		}
		return entity(c, name, row)
	}
}

// entity is the answer with one object of a set.
func entity[T any](c *call, name string, row T) (reply, error) {
	s := schemaOf[T]()
	if p := c.options.check(s); p != nil {
		return reply{}, p
	}
	context := c.metadata() + name + selection(c.options.selects) + "/$entity"
	return reply{body: withContext{context, shape(row, &c.options, s)}}, nil
}

// created is entity with the status that actions answer with.
func created[T any](c *call, name string, row T) (reply, error) {
	out, err := entity(c, name, row)
	out.status = 201
	return out, err
}

// scalar is the answer with one value of a type of OData's own.
func scalar(c *call, kind string, value any) (reply, error) {
	return reply{body: members{{"@odata.context", c.metadata() + kind}, {"value", value}}}, nil
}

// withContext puts @odata.context before the members of an object.
type withContext struct {
	context string
	value   any
}

// MarshalJSON implements json.Marshaler.
func (e withContext) MarshalJSON() ([]byte, error) {
	context, err := marshalPlain(e.context)
	if err != nil {
		return nil, err
	}
	value, err := marshalPlain(e.value)
	if err != nil {
		return nil, err
	}
	b := slices.Concat([]byte(`{"@odata.context":`), context)
	if rest := value[1:]; len(rest) > 1 {
		return slices.Concat(b, []byte(","), rest), nil
	}
	return append(b, '}'), nil
}

// Skip tokens hold the place of the next row and are signed, so that one that
// was changed on its way is refused. They hold no state and live for ever.
// Their plus signs and trailing equals signs are on purpose: + must travel as
// %2B, and who decodes and encodes again carelessly loses the place.

func (c *call) skiptoken(from int) string {
	// 22 bytes: base64 of a length that leaves 1 over 3 ends in "==".
	b := binary.BigEndian.AppendUint64(nil, uint64(from))
	b = append(b, c.tokenSum(from)[:14]...)
	return "+t+" + base64.StdEncoding.EncodeToString(b)
}

func (c *call) tokenSum(from int) []byte {
	h := hmac.New(sha256.New, binary.BigEndian.AppendUint64([]byte("skiptoken"), c.sim.cfg.Seed))
	fmt.Fprintf(h, "%s %s %d", c.who.tenant.id, c.op.ID, from)
	return h.Sum(nil)
}

func (c *call) readSkiptoken(token string) (int, *problem) {
	bad := odataProblem("The $skiptoken '%s' is not valid.", token)
	text, ok := strings.CutPrefix(token, "+t+")
	if !ok {
		return 0, bad
	}
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(b) != 22 {
		return 0, bad
	}
	from := int(binary.BigEndian.Uint64(b[:8]))
	if from < 0 || !hmac.Equal(b[8:], c.tokenSum(from)[:14]) {
		return 0, bad
	}
	return from, nil
}

// nextLink is absolute, on Microsoft's host, with the query of the request.
func (c *call) nextLink(from int) json.RawMessage {
	path, _, _ := strings.Cut(c.r.RequestURI, "?")
	token := strings.NewReplacer("+", "%2B", "/", "%2F").Replace(c.skiptoken(from))
	rest := path + "?" + strings.Join(append(slices.Clone(c.options.kept), "$skiptoken="+token), "&")
	host := hosts[string(c.op.Service)]
	slash := "/"
	if c.oddLinks {
		odd := []string{
			"https://user:word@api.securitycenter.microsoft.com", "https://api.security.microsoft.com:8443",
			"http://api.securitycenter.microsoft.com", "https://api.security.microsoft.com.example.net",
			"https://wdatpapi-eus-stg.cloudapp.net", "https://api-us.securitycenter.microsoft.com",
		}
		i := from / max(c.sim.cfg.PageSize, 1)
		host = odd[i%len(odd)]
		if i%2 == 1 {
			slash = `\/`
		}
	}
	link, err := marshalPlain(host + rest)
	if err != nil {
		return nil
	}
	return json.RawMessage(strings.ReplaceAll(string(link), "/", slash))
}
