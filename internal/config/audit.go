package config

// Audit is the record of every request.
type Audit struct {
	// Where records go: stdout, stderr, or a file that is appended to. Default
	// stdout.
	File string `yaml:"file" kind:"output" default:"stdout"`

	// The size at which the file is put aside and a new one begun. Default 0B: never;
	// from 0B to 100GiB, and not below 4KiB.
	MaxBytes int64 `yaml:"max_bytes" kind:"size" default:"0B" min:"0B" max:"100GiB"`

	// How many files that were put aside are kept. Default 10; from 1 to 1000. Has an
	// effect only with max_bytes.
	Keep int `yaml:"keep" default:"10" min:"1" max:"1000"`

	// Whether each record carries the hash of the one before, so that the command
	// audit verify finds one that was changed or is missing. Default false.
	Chain bool `yaml:"chain" default:"false"`

	// A second place, by syslog (RFC 5424): udp://HOST, tcp://HOST or tls://HOST, with
	// a port where it is not 514, with tls 6514; or unix:PATH. Default none.
	Syslog string `yaml:"syslog" kind:"syslog"`

	// A third place, an OpenTelemetry collector that takes OTLP over HTTP: its URL,
	// with /v1/logs where it has no path. Default none.
	OTLP string `yaml:"otlp" kind:"collector"`

	// What becomes of a write whose record cannot be stored. Default required: it
	// is refused; best_effort lets it pass.
	Writes WritesRule `yaml:"writes" default:"required" oneof:"required best_effort"`

	// Whether the caller's group and the request id are appended to the comment of
	// an action, so that Microsoft's portal shows who really asked; one whose comment
	// cannot be read (packed, longer than 256 KiB, no plain JSON) is refused. Default
	// false.
	Annotate bool `yaml:"annotate" default:"false"`
}

// The values of Audit.File that are not files.
const (
	Stdout = "stdout"
	Stderr = "stderr"
)

// WritesRule is what becomes of a write whose record cannot be stored.
type WritesRule string

// The rules for writes without a record.
const (
	WritesRequired   WritesRule = "required"
	WritesBestEffort WritesRule = "best_effort"
)
