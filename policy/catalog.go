package policy

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
)

// Catalog is a set of operations that can be searched by method and path. It is
// immutable once made and safe for concurrent use.
type Catalog struct {
	rows  []*Operation // in the order of the files, additions last
	byID  map[string]*Operation
	root  *node
	stray map[Service]*Operation
}

// strayID begins the ids of the operations that stand for paths outside the
// catalog; see Policy.AllowUnknown.
const strayID = "unknown."

// NewCatalog makes the catalog of Documented, Graph, Seen, our corrections of them,
// and the operator's additions. An addition whose id exists corrects that row:
// what it leaves out stays. Every fault of the additions is reported, as one
// *AdditionError each, joined.
func NewCatalog(additions []Operation) (*Catalog, error) {
	c := &Catalog{byID: make(map[string]*Operation), root: &node{}, stray: make(map[Service]*Operation)}
	for _, op := range slices.Concat(Documented(), Graph(), Seen()) {
		c.put(&op)
	}
	for _, op := range mustParse("corrections.jsonl", corrections) {
		c.put(corrected(c.byID[fold(op.ID)], op))
	}
	var faults []error
	for i, op := range additions {
		row, known := c.byID[fold(op.ID)]
		merged := &op
		if known {
			merged = corrected(row, op)
		}
		if err := validate(merged); err != nil {
			faults = append(faults, &AdditionError{Index: i, ID: op.ID, Err: err})
			continue
		}
		c.put(merged)
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	for _, s := range Services() {
		op := &Operation{ID: strayID + string(s), Service: s, Class: ClassRead, Title: "A path outside the catalog"}
		c.stray[s] = op
		c.put(op)
	}
	for i, op := range c.rows {
		op.number = i
		if op.stray() {
			continue
		}
		if err := c.root.add(op); err != nil {
			i := slices.IndexFunc(additions, func(a Operation) bool { return foldEqual(a.ID, op.ID) })
			faults = append(faults, &AdditionError{Index: i, ID: op.ID, Err: err})
		}
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	for i, op := range additions {
		if err := c.succession(c.byID[fold(op.ID)]); err != nil {
			faults = append(faults, &AdditionError{Index: i, ID: op.ID, Err: err})
		}
	}
	if err := errors.Join(faults...); err != nil {
		return nil, err
	}
	c.root.finish()
	return c, nil
}

// AdditionError is a fault of one of the operator's additions to the catalog.
type AdditionError struct {
	// Index is the addition's place in the list given to NewCatalog.
	Index int
	ID    string
	Err   error
}

func (e *AdditionError) Error() string { return fmt.Sprintf("operation %q: %v", e.ID, e.Err) }
func (e *AdditionError) Unwrap() error { return e.Err }

// put adds a row, or replaces the one with its id.
func (c *Catalog) put(op *Operation) {
	id := fold(op.ID)
	if old, ok := c.byID[id]; ok {
		c.rows[slices.Index(c.rows, old)] = op
	} else {
		c.rows = append(c.rows, op)
	}
	c.byID[id] = op
}

// corrected returns a copy of row with what by gives. A list that is empty but
// not nil is given.
func corrected(row *Operation, by Operation) *Operation {
	op := *row
	op.Service = cmp.Or(by.Service, op.Service)
	op.Method = cmp.Or(by.Method, op.Method)
	op.Path = cmp.Or(by.Path, op.Path)
	op.Class = cmp.Or(by.Class, op.Class)
	if by.Application != nil {
		op.Application = by.Application
	}
	if by.Delegated != nil {
		op.Delegated = by.Delegated
	}
	op.PerMinute = cmp.Or(by.PerMinute, op.PerMinute)
	op.PerHour = cmp.Or(by.PerHour, op.PerHour)
	op.Doc = cmp.Or(by.Doc, op.Doc)
	op.Title = cmp.Or(by.Title, op.Title)
	op.Response = cmp.Or(by.Response, op.Response)
	op.Body = cmp.Or(by.Body, op.Body)
	op.Notes = strings.TrimSpace(op.Notes + " " + by.Notes)
	op.SASLinks = by.SASLinks || op.SASLinks
	op.Deprecated = cmp.Or(by.Deprecated, op.Deprecated)
	op.Sunset = cmp.Or(by.Sunset, op.Sunset)
	op.Successor = cmp.Or(by.Successor, op.Successor)
	return &op
}

func validate(op *Operation) error {
	if op.ID == "" || strings.ContainsFunc(op.ID, func(r rune) bool {
		return r != '.' && r != '_' && r != '-' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	}) {
		return errors.New("an id consists of letters, digits, dots, hyphens and underscores, such as machines.isolate")
	}
	if strings.HasPrefix(fold(op.ID), strayID) {
		return fmt.Errorf("ids that begin with %q are taken", strayID)
	}
	if !slices.Contains(Services(), op.Service) {
		return fmt.Errorf("service %q is none of %v", op.Service, Services())
	}
	methods := []string{http.MethodGet, http.MethodPost, http.MethodPatch, http.MethodPut, http.MethodDelete}
	if !slices.Contains(methods, op.Method) {
		return fmt.Errorf("method %q is none of %v", op.Method, methods)
	}
	if !slices.Contains(Classes(), op.Class) {
		return fmt.Errorf("class %q is none of %v", op.Class, Classes())
	}
	if !op.Class.Writes() && op.Method != http.MethodGet && op.Method != http.MethodPost {
		return fmt.Errorf("method %s changes something, class %s does not", op.Method, op.Class)
	}
	if !Ours(op.Path) {
		return fmt.Errorf("path %q begins with neither /api/ nor /v1.0/security/", op.Path)
	}
	for name, day := range map[string]string{"deprecated": op.Deprecated, "sunset": op.Sunset} {
		if _, err := time.Parse(time.DateOnly, day); day != "" && err != nil {
			return fmt.Errorf("%s %q is not a day such as 2027-02-01", name, day)
		}
	}
	if len(op.Application)+len(op.Delegated) == 0 {
		return errors.New("neither application nor delegated names a permission, so no token would be let through")
	}
	return nil
}

// Ours reports whether a canonical path belongs to one of the APIs: /api/… or
// /v1.0/security/…, in any letter case.
func Ours(path string) bool {
	for _, p := range [...]string{"/api/", "/v1.0/security/"} {
		if len(path) > len(p) && foldEqual(path[:len(p)], p) {
			return true
		}
	}
	return false
}

// Operations returns the rows of the catalog in its order. The rows are shared
// and must not be changed.
func (c *Catalog) Operations() []*Operation {
	return slices.DeleteFunc(slices.Clone(c.rows), (*Operation).stray)
}

// ByID finds a row by its id, without regard to ASCII case.
func (c *Catalog) ByID(id string) (*Operation, bool) {
	op, ok := c.byID[fold(id)]
	return op, ok && !op.stray()
}

// stray reports whether the operation stands for paths outside the catalog.
func (op *Operation) stray() bool { return strings.HasPrefix(op.ID, strayID) }

// serviceOf tells the service of a path that is in no row, by its beginning.
func serviceOf(path string) Service {
	for prefix, s := range map[string]Service{
		"/v1.0/": ServiceGraph, "/api/incidents": ServiceXDR, "/api/advancedhunting": ServiceXDR,
	} {
		if len(path) >= len(prefix) && foldEqual(path[:len(prefix)], prefix) {
			return s
		}
	}
	return ServiceMDE
}
