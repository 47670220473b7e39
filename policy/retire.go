package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Retires reports whether Microsoft retires the operation.
func (op *Operation) Retires() bool { return op.Deprecated != "" || op.Sunset != "" }

// DeprecatedAt is when Deprecated begins, in UTC; zero where it is empty.
func (op *Operation) DeprecatedAt() time.Time { return day(op.Deprecated) }

// SunsetAt is when Sunset begins, in UTC; zero where it is empty.
func (op *Operation) SunsetAt() time.Time { return day(op.Sunset) }

// Past reports whether the operation is gone by its Sunset.
func (op *Operation) Past(now time.Time) bool {
	at := op.SunsetAt()
	return !at.IsZero() && !now.Before(at)
}

func day(text string) time.Time {
	at, _ := time.Parse(time.DateOnly, text) // a catalog has no other
	return at
}

// Page is the address of Doc, empty where that names none of Microsoft's pages.
func (op *Operation) Page() string {
	const site = "https://learn.microsoft.com/"
	name, markdown := strings.CutSuffix(op.Doc, ".md")
	switch {
	case !markdown && strings.HasPrefix(op.Doc, "graph/api/"):
		return site + op.Doc
	case !markdown || strings.ContainsAny(name, " /?#"):
		return ""
	case op.Service == ServiceXDR:
		return site + "defender-xdr/" + name
	}
	return site + "defender-endpoint/api/" + name
}

// Successor gives the operation that takes the place of one that is retired, nil
// where there is none.
func (c *Catalog) Successor(op *Operation) *Operation {
	if op == nil || op.Successor == "" {
		return nil
	}
	return c.byID[fold(op.Successor)]
}

// succession says what of an operation's successor can never be meant.
func (c *Catalog) succession(op *Operation) error {
	next := c.Successor(op)
	switch {
	case op.Successor == "":
		return nil
	case next == nil || next.stray():
		return fmt.Errorf("successor %q is no operation of the catalog", op.Successor)
	case next == op:
		return fmt.Errorf("successor %q is the operation itself", op.Successor)
	case next.Class != op.Class:
		return fmt.Errorf("successor %q is of class %s, the operation of class %s: whoever is granted the one is not granted the other", op.Successor, next.Class, op.Class)
	}
	return nil
}

// Sends tells as which operations the requests for one may be sent: as itself, as
// its successor, or as both, where nobody knows yet. The nil value says as itself.
// The grant that is asked for is always that of the operation, the permission that
// of what is sent.
type Sends func(*Operation) []*Operation

// as gives what of a service an operation is sent as, nil for nothing.
func (f Sends) as(op *Operation, s Service) *Operation {
	if f == nil {
		if op.Service == s {
			return op
		}
		return nil
	}
	all := f(op)
	if i := slices.IndexFunc(all, func(sent *Operation) bool { return sent.Service == s }); i >= 0 {
		return all[i]
	}
	return nil
}
