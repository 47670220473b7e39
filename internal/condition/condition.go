// Package condition is the optional condition of a grant, in CEL: what has to be
// true of a request, its JSON body included, beside its operation.
//
// Whatever cannot be judged does not hold: a body that is too long, encoded, no
// JSON or ambiguous; a field that is missing; work that takes too long. The body is
// judged as the far side may read it, not only as this package does, so two keys
// that differ in letter case are as bad as the same key twice.
//
// Package config compiles conditions, package proxy asks them.
package condition

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/ext"
)

// Condition is a compiled condition. It is immutable and safe for concurrent use.
// The zero value and nil never hold.
type Condition struct {
	text    string
	program cel.Program
	names   names
}

// maxText is the length of a condition in characters.
const maxText = 4096

// maxRegexp bounds a pattern of matches, in instructions of package regexp, which
// may go through all of them for each character of a text.
const maxRegexp = 1000

// The names that a condition knows the request by.
const (
	method    = "request.method"
	path      = "request.path"
	tenant    = "request.tenant"
	client    = "request.client"
	operation = "request.operation"
	body      = "request.body"
)

// environment is the language: standard CEL, a few functions on strings, and the
// request. The functions are of a fixed version, so that no update adds one.
var environment = sync.OnceValues(func() (*cel.Env, error) {
	return cel.NewEnv(
		ext.Strings(ext.StringsVersion(5)),
		cel.Variable(method, cel.StringType),
		cel.Variable(path, cel.StringType),
		cel.Variable(tenant, cel.StringType),
		cel.Variable(client, cel.StringType),
		cel.Variable(operation, cel.StringType),
		cel.Variable(body, cel.DynType),
		cel.ParserExpressionSizeLimit(maxText),
		cel.RegexProgramSizeLimit(maxRegexp),
		cel.ASTValidators(cel.ValidateRegexLiterals(), cel.ValidateDurationLiterals(), cel.ValidateTimestampLiterals(), cel.ValidateComprehensionNestingLimit(2)),
	)
})

// Compile compiles the text of when:. Its error names what is wrong, with line and
// column of the text.
func Compile(text string) (*Condition, error) {
	if strings.TrimSpace(text) == "" {
		return nil, errors.New("the condition is empty")
	}
	env, err := environment()
	if err != nil {
		return nil, fmt.Errorf("condition: the language cannot be set up: %w", err)
	}
	tree, issues := env.Compile(text)
	if issues.Err() != nil {
		return nil, faults(text, issues.Errors())
	}
	if t := tree.OutputType(); t != cel.BoolType && t != cel.DynType { // a field of the body may be true or false
		return nil, fmt.Errorf("the condition gives a value of type %s, not true or false; compare it, as in request.body.IsolationType == \"Selective\"", cel.FormatCELType(tree.OutputType()))
	}
	found, err := look(tree.NativeRep())
	if err != nil {
		return nil, err
	}
	program, err := env.Program(tree, cel.EvalOptions(cel.OptOptimize), cel.CostTracking(prices{}), cel.CostLimit(maxCost))
	if err != nil {
		return nil, fmt.Errorf("the condition cannot be carried out: %w", err)
	}
	return &Condition{text: text, program: program, names: found}, nil
}

// faults words what the compiler found, the first few.
func faults(text string, found []*cel.Error) error {
	const most = 3
	var all []string
	for _, f := range found[:min(len(found), most)] {
		message, _, _ := strings.Cut(f.Message, " (in container '')")
		slip := slipped(text, message, f.Location.Line(), f.Location.Column())
		if slip != "" {
			message = slip
		} else {
			message += hint(text, message)
		}
		if f.Location.Line() < 1 {
			all = append(all, message)
			continue
		}
		all = append(all, fmt.Sprintf("line %d, column %d: %s", f.Location.Line(), f.Location.Column()+1, message))
		if slip != "" {
			break // what follows comes of it
		}
	}
	return errors.New(strings.Join(all, "; "))
}

// String is the text as the operator wrote it.
func (c *Condition) String() string {
	if c == nil {
		return ""
	}
	return c.text
}

// Request is what a condition may look at.
type Request struct {
	Method, Path, Tenant, Client, Operation string
	// Body gives the body; it is called at most once for each Holds, and only by a
	// condition that looks at it. nil: there is no body to be had.
	Body func() (*Body, error)
}

// Holds says whether the condition is true of a request. With an error it is not.
// A condition that asks for the body and does not get it does not hold, whatever
// else is true.
func (c *Condition) Holds(r Request) (bool, error) {
	if c == nil || c.program == nil {
		return false, errors.New("there is no condition")
	}
	a := &activation{request: &r, names: c.names}
	value, _, err := c.program.Eval(a)
	switch {
	case a.err != nil:
		return false, a.err
	case err != nil:
		return false, errors.New(shortened(err.Error()))
	}
	holds, ok := value.(types.Bool)
	if !ok {
		return false, fmt.Errorf("it gives a value of type %s, not true or false", value.Type().TypeName())
	}
	return bool(holds), nil
}

// shortened bounds what a caller's body can put into an error.
func shortened(s string) string {
	const most = 200
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

// activation gives a condition the values of its names, the body only on demand.
type activation struct {
	request *Request
	names   names
	asked   bool
	body    any
	err     error // why there is no body
}

// Parent is part of cel.Activation.
func (a *activation) Parent() cel.Activation { return nil }

// ResolveName is part of cel.Activation.
func (a *activation) ResolveName(name string) (any, bool) {
	switch name {
	case method:
		return a.request.Method, true
	case path:
		return a.request.Path, true
	case tenant:
		return a.request.Tenant, true
	case client:
		return a.request.Client, true
	case operation:
		return a.request.Operation, true
	case body:
		return a.value(), true
	}
	return nil, false
}

func (a *activation) value() any {
	if !a.asked {
		a.asked = true
		a.body, a.err = a.fetch()
	}
	if a.err != nil {
		return types.WrapErr(a.err)
	}
	return a.body
}

func (a *activation) fetch() (any, error) {
	if a.request.Body == nil {
		return nil, errors.New("the body is not known")
	}
	b, err := a.request.Body()
	switch {
	case err != nil:
		return nil, err
	case b == nil:
		return nil, errors.New("the body is not known")
	}
	return b.value, a.names.check(b.value)
}
