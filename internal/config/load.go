package config

import (
	"io"
	"os"
	"path/filepath"
	"reflect"

	"defender-proxy/regions"
)

// Load reads and validates the configuration file at path. env looks up an
// environment variable, as os.LookupEnv does. The error is a Faults.
func Load(path string, env func(string) (string, bool)) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, Faults{{File: path, Message: "cannot be read: " + reason(err).Error()}}
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, int64(wholeForm.bytes)+1))
	if err != nil {
		return nil, Faults{{File: path, Message: "cannot be read: " + reason(err).Error()}}
	}
	return Parse(path, data, env)
}

// Parse validates the configuration in data. name is what faults call it; files
// that the configuration names with a relative path are looked for in name's
// directory, or beside the tenant's file that names them. The error is a Faults
// with every fault found. Parse reads the files and variables that the
// configuration names to see that they are there; it keeps nothing of them.
// Where those of a tenant's credential are not there, the tenant is impaired and
// the configuration valid; only a configuration that is refused anyway tells
// them among its faults, so that all can be mended at once.
func Parse(name string, data []byte, env func(string) (string, bool)) (*Config, error) {
	r := newReport(name)
	c := &Config{sources: []string{name}}
	if root := r.document(data, wholeForm); root != nil {
		setDefaults(reflect.ValueOf(c).Elem())
		d := &decoder{report: r, dir: filepath.Dir(name), lookup: env}
		d.decodeStruct(root, "", reflect.ValueOf(c).Elem())
		d.tenantFiles(c)
		v := &validator{
			report: r, c: c, lookup: env,
			regionsOf: make(map[string][]regions.Name), evidenced: make(map[string]string),
		}
		v.validate()
	}
	if len(r.faults) > 0 {
		r.tellImpaired(c)
		r.sort(r.faults)
		return nil, r.faults
	}
	r.sort(r.warnings)
	c.Warnings = r.warnings
	return c, nil
}
