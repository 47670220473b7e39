package config

import (
	"time"

	"defender-proxy/internal/clients"
)

// ClientGroup is a set of callers with the same grants.
type ClientGroup struct {
	// What listeners and the audit record call the group: a-z, 0-9 and hyphens.
	Name string `yaml:"name" required:"a name such as soc"`

	// Who its callers are: addresses and prefixes; unix:uid=N, unix:gid=N or unix:*
	// (whoever can open it) on a Unix socket; tls:CN=NAME, tls:DNS=NAME or tls:URI=ID
	// in a client certificate. One of them is enough.
	From []clients.Source `yaml:"from" required:"the addresses of the group's callers, such as [10.1.2.0/24]"`

	// Local keys that callers have to send beside, by the header that carries them.
	// Either its SHA-256 in hexadecimal, sha256:HEX, or a variable with the key
	// itself. Default none.
	Headers map[string]LocalKey `yaml:"headers"`

	// The tenants that the group may ask for. Default all.
	Tenants []string `yaml:"tenants"`

	// What the group may do: classes (read, hunt, download, triage, manage,
	// respond), operation ids (machines.*), or the method and path of a row of
	// the catalog ("GET /api/machines/{id}"). Default read and hunt; an empty
	// list grants nothing. An entry may be bound to more; it is a mapping then.
	Allow []Grant `yaml:"allow"`

	// What the group may not do, in the same words, but without when. Default none.
	// Deny wins over allow.
	Deny []Grant `yaml:"deny"`

	// What becomes of requests that no entry of allow grants. Default enforce: they
	// are refused; report lets them pass and records what would be refused. What
	// deny names is refused in any case.
	Grants GrantsRule `yaml:"grants" default:"enforce" oneof:"enforce report"`
}

// Grant is one entry of allow or deny. In the file it may be a text alone: one
// operation, without anything it is bound to.
type Grant struct {
	// What the entry is about, in the words of a plain entry.
	Operations []string `yaml:"operations" required:"classes, operation ids or rows of the catalog, such as [machines.isolate]"`

	// The tenants that the entry holds for. Default all that the group may ask for.
	Tenants []string `yaml:"tenants"`

	// The moment from which the entry does not hold any more, with its time zone.
	// Default never.
	Until time.Time `yaml:"until"`

	// What must hold of the request beside, in CEL. For allow alone. Default nothing.
	When string `yaml:"when"`
}

// GrantsRule is what becomes of requests that are not granted.
type GrantsRule string

// The rules for what is not granted.
const (
	GrantsEnforce GrantsRule = "enforce"
	GrantsReport  GrantsRule = "report"
)

// Granting makes entries of plain texts: one Grant each.
func Granting(texts ...string) []Grant {
	all := make([]Grant, len(texts))
	for i, t := range texts {
		all[i] = Grant{Operations: []string{t}}
	}
	return all
}
