package policy

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// Service is the Microsoft API that an operation belongs to. It decides the
// audience of the token; the host of a request never does.
type Service string

// The services of the catalog.
const (
	ServiceMDE   Service = "mde"   // Microsoft Defender for Endpoint
	ServiceXDR   Service = "xdr"   // Microsoft Defender XDR
	ServiceGraph Service = "graph" // Microsoft Graph security
)

// Services lists every service, in the order of the catalog.
func Services() []Service { return []Service{ServiceMDE, ServiceXDR, ServiceGraph} }

// Class groups operations by what they do to a tenant, so that a grant can be
// short.
type Class string

// The classes, from harmless to dangerous.
const (
	ClassRead     Class = "read"     // reads, and nothing else
	ClassHunt     Class = "hunt"     // advanced hunting queries
	ClassDownload Class = "download" // links to packages and live-response results: forensic data
	ClassTriage   Class = "triage"   // changes an alert, incident, tag or device value
	ClassManage   Class = "manage"   // changes indicators, library files, scan definitions
	ClassRespond  Class = "respond"  // acts on machines: isolate, scan, quarantine, live response, offboard
)

// Classes lists every class, from harmless to dangerous.
func Classes() []Class {
	return []Class{ClassRead, ClassHunt, ClassDownload, ClassTriage, ClassManage, ClassRespond}
}

// Writes reports whether operations of the class change something. An unknown
// class is taken to.
func (c Class) Writes() bool {
	switch c {
	case ClassRead, ClassHunt, ClassDownload:
		return false
	}
	return true
}

// Permission is the name of an Entra permission, such as Machine.Isolate.
// Microsoft's pages write some names in two letter cases (URL.Read.All,
// Url.Read.All), so permissions are compared without regard to ASCII case.
type Permission string

// Operation is one row of the catalog: something that can be asked of one of
// Microsoft's APIs. The JSON form is that of catalog/*.jsonl and of the
// configuration key policy.operations.
type Operation struct {
	// ID is our name, resource.verb, unique in a catalog.
	ID      string  `json:"id"`
	Service Service `json:"service"`
	Method  string  `json:"method"`
	// Path is a template: {name} stands for one segment or for one argument of
	// an OData function.
	Path  string `json:"path"`
	Class Class  `json:"class"`
	// Application and Delegated are the permissions of an application's token
	// (roles) and of a user's token (scp). Any one of a list suffices; no token
	// satisfies an empty list.
	Application []Permission `json:"application"`
	Delegated   []Permission `json:"delegated"`
	// PerMinute and PerHour are the documented limits in calls; 0 where none is
	// stated.
	PerMinute int `json:"per_minute"`
	PerHour   int `json:"per_hour"`
	// Doc is the page of Microsoft's documentation, Title its heading.
	Doc      string `json:"doc"`
	Title    string `json:"title"`
	Response string `json:"response"`
	Body     string `json:"body"`
	Notes    string `json:"notes"`
	// SASLinks says that the answer holds signed download links.
	SASLinks bool `json:"sas_links"`
	// Deprecated and Sunset are days (2026-02-06): since when Microsoft advises
	// against the operation, and from when on it is gone; empty: it stays.
	// Successor is the id of the operation that takes its place; see Sends.
	Deprecated string `json:"deprecated"`
	Sunset     string `json:"sunset"`
	Successor  string `json:"successor"`

	number int // the place in its catalog
}

// Documented returns the 117 operations of Defender for Endpoint and Defender
// XDR as Microsoft's public pages describe them, in the order of the file.
// catalog/README.md says how they were read. The slice is the caller's.
func Documented() []Operation { return mustParse("operations.jsonl", documented) }

// Graph returns the operations of Microsoft Graph security that replace parts
// of the older APIs. The slice is the caller's.
func Graph() []Operation { return mustParse("graph.jsonl", graph) }

// Seen returns the operations that well-known clients call and that have no page of
// their own: notes says who does. The slice is the caller's.
func Seen() []Operation { return mustParse("seen.jsonl", seen) }

var (
	//go:embed catalog/operations.jsonl
	documented []byte
	//go:embed catalog/graph.jsonl
	graph []byte
	//go:embed catalog/seen.jsonl
	seen []byte
	//go:embed catalog/corrections.jsonl
	corrections []byte
)

func mustParse(name string, data []byte) []Operation {
	ops, err := parseOperations(data)
	if err != nil {
		panic(fmt.Sprintf("policy: embedded catalog/%s: %v", name, err))
	}
	return ops
}

// parseOperations reads one JSON object a line. Unknown fields are errors: a
// misspelt permission list would otherwise be an empty one.
func parseOperations(data []byte) ([]Operation, error) {
	var ops []Operation
	for n, line := range bytes.Split(data, []byte("\n")) {
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		var op Operation
		d := json.NewDecoder(bytes.NewReader(line))
		d.DisallowUnknownFields()
		if err := d.Decode(&op); err != nil {
			return nil, fmt.Errorf("line %d: %w", n+1, err)
		}
		if _, err := d.Token(); err != io.EOF {
			return nil, fmt.Errorf("line %d: more than one value", n+1)
		}
		ops = append(ops, op)
	}
	return ops, nil
}

// foldEqual compares ASCII letters without regard to case. strings.EqualFold
// will not do: it also takes U+017F for s and U+212A for k.
func foldEqual(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := 0; i < len(a); i++ {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + ('a' - 'A')
	}
	return c
}

// fold returns s with ASCII letters in lower case.
func fold(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + ('a' - 'A')
		}
		return r
	}, s)
}

// Application is the name of the Entra application on which the service's
// permissions are granted, as the pages about each API's permissions print it.
func (s Service) Application() string {
	switch s {
	case ServiceMDE:
		return "WindowsDefenderATP"
	case ServiceXDR:
		return "Microsoft Threat Protection"
	case ServiceGraph:
		return "Microsoft Graph"
	}
	return string(s)
}
