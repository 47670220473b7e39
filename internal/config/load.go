package config

import (
	"io"
	"os"
	"path/filepath"
	"reflect"
)

// Load reads and validates the configuration file at path. env looks up an
// environment variable, as os.LookupEnv does. The error is a Faults.
func Load(path string, env func(string) (string, bool)) (*Config, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, Faults{{File: path, Message: "cannot be read: " + reason(err).Error()}}
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return nil, Faults{{File: path, Message: "cannot be read: " + reason(err).Error()}}
	}
	return Parse(path, data, env)
}

// Parse validates the configuration in data. name is what faults call it; files
// that the configuration names with a relative path are looked for in name's
// directory. The error is a Faults with every fault found. Parse reads the
// files and variables that the configuration names to see that they are there;
// it keeps nothing of them.
func Parse(name string, data []byte, env func(string) (string, bool)) (*Config, error) {
	r := &report{file: name, marks: make(map[string]mark), env: make(map[string]bool)}
	c := new(Config)
	if root := r.document(data); root != nil {
		setDefaults(reflect.ValueOf(c).Elem())
		d := &decoder{report: r, dir: filepath.Dir(name), lookup: env}
		d.decodeStruct(root, "", reflect.ValueOf(c).Elem())
		v := &validator{report: r, c: c, lookup: env}
		v.validate()
	}
	if len(r.faults) > 0 {
		r.faults.sort()
		return nil, r.faults
	}
	r.warnings.sort()
	c.Warnings = r.warnings
	return c, nil
}
