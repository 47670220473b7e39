package config

import (
	"io"
	"path/filepath"
	"reflect"

	"defender-proxy/regions"
)

// Load reads and validates the configuration file at path. env looks up an
// environment variable, as os.LookupEnv does. The error is a Faults.
func Load(path string, env func(string) (string, bool)) (*Config, error) {
	data, err := source(path)
	if err != nil {
		return nil, err
	}
	return Parse(path, data, env)
}

// LoadPartly is Load, but for tenants with faulty files of their own in
// tenants_dir: it leaves them out and tells them in Impaired, so that no tenant
// keeps the others from starting. What concerns several files, such as a name
// that two tenants have, is a fault all the same, and so is having no tenant left.
//
// A client group that names such a tenant has the others that it names, or none;
// a listener whose tenant it is admits nobody.
func LoadPartly(path string, env func(string) (string, bool)) (*Config, error) {
	return loadPartly(path, env, true)
}

// LoadUncertified is LoadPartly, but does not look at the certificates of
// listeners: they may not have been made yet.
func LoadUncertified(path string, env func(string) (string, bool)) (*Config, error) {
	return loadPartly(path, env, false)
}

func loadPartly(path string, env func(string) (string, bool), certified bool) (*Config, error) {
	data, err := source(path)
	if err != nil {
		return nil, err
	}
	out := make(absent)
	c, r := read(path, data, env, out, certified)
	all, report := c, r
	for len(r.files) > 0 {
		out.add(r, c)
		c, r = read(path, data, env, out, certified)
	}
	if len(r.faults) > 0 || len(c.Tenants) == 0 {
		return nil, report.told(all)
	}
	out.strip(c)
	return c, r.told(c)
}

// source reads the configuration file.
func source(path string) ([]byte, error) {
	f, _, err := openFile(path)
	if err != nil {
		return nil, Faults{{File: path, Message: "cannot be read: " + err.Error()}}
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, int64(wholeForm.bytes)+1))
	if err != nil {
		return nil, Faults{{File: path, Message: "cannot be read: " + reason(err).Error()}}
	}
	return data, nil
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
	c, r := read(name, data, env, nil, true)
	if err := r.told(c); err != nil {
		return nil, err
	}
	return c, nil
}

// read is Parse, without the files of tenants that are left out, and with those of
// listeners' certificates only where certified says so.
func read(name string, data []byte, env func(string) (string, bool), out absent, certified bool) (*Config, *report) {
	r := newReport(name)
	c := &Config{sources: []string{name}}
	if root := r.document(data, wholeForm); root != nil {
		setDefaults(reflect.ValueOf(c).Elem())
		d := &decoder{report: r, dir: filepath.Dir(name), lookup: env}
		d.decodeStruct(root, "", reflect.ValueOf(c).Elem())
		d.tenantFiles(c, out)
		v := &validator{
			report: r, c: c, lookup: env, out: out, certified: certified,
			regionsOf: make(map[string][]regions.Name), evidenced: make(map[string]string),
		}
		v.validate()
	}
	return c, r
}

// told gives the faults, in order, with what impairs tenants; nil where there is
// no fault, and then c has its warnings.
func (r *report) told(c *Config) error {
	if len(r.faults) > 0 {
		r.tellImpaired(c)
		r.sort(r.faults)
		return r.faults
	}
	r.sort(r.warnings)
	c.Warnings = r.warnings
	return nil
}
