package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
)

// maxTenantFiles bounds tenants_dir.
const maxTenantFiles = 10_000

// tenantFiles reads the tenants that have files of their own, in the order of
// the files' names, behind those of the configuration file, but for those that are
// left out.
func (d *decoder) tenantFiles(c *Config, out absent) {
	if c.TenantsDir == "" || !d.clean("tenants_dir") {
		return
	}
	names, err := tenantFileNames(c.TenantsDir)
	switch {
	case err != nil && d.fromEnv("tenants_dir"):
		d.fault("tenants_dir", "the folder %s cannot be read", d.show("tenants_dir", c.TenantsDir))
		return
	case err != nil:
		d.fault("tenants_dir", "the folder %s cannot be read: %v", c.TenantsDir, err)
		return
	case len(names) > maxTenantFiles:
		d.fault("tenants_dir", "the folder has %d files of tenants; at most %d are read", len(names), maxTenantFiles)
		return
	}
	dir, reading := d.dir, d.reading
	defer func() { d.dir, d.reading = dir, reading }()
	c.sources = append(c.sources, c.TenantsDir)
	for _, name := range names {
		if d.full() {
			return
		}
		path := filepath.Join(c.TenantsDir, name)
		c.sources = append(c.sources, path)
		if out[path] == nil {
			d.dir, d.reading = c.TenantsDir, path
			d.tenantFile(path, c)
		}
	}
}

// tenantFileNames lists the files of tenants in a folder, sorted. What begins
// with a dot is passed over: editors and Kubernetes keep their own there.
func tenantFileNames(dir string) ([]string, error) {
	if info, err := os.Stat(dir); err != nil {
		return nil, reason(err)
	} else if !info.IsDir() {
		return nil, errors.New("it is not a folder")
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, reason(err)
	}
	var names []string
	for _, e := range entries {
		name := e.Name()
		if ext := filepath.Ext(name); !strings.HasPrefix(name, ".") && (ext == ".yaml" || ext == ".yml") {
			names = append(names, name)
		}
	}
	return names, nil
}

// tenantFile reads one tenant.
func (d *decoder) tenantFile(path string, c *Config) {
	data, _, err := readFile(path, int64(tenantForm.bytes))
	if err != nil {
		d.faultAt(d.line(0), "", "%v", err)
		return
	}
	root := d.document(data, tenantForm)
	if root == nil {
		return
	}
	var t Tenant
	v := reflect.ValueOf(&t).Elem()
	setDefaults(v)
	key := tenantKey(len(c.Tenants))
	d.marks[key] = d.here(root)
	d.decodeStruct(root, key, v)
	if !d.given(key + ".name") {
		name := filepath.Base(path)
		t.Name = strings.TrimSuffix(name, filepath.Ext(name))
	}
	c.Tenants = append(c.Tenants, t)
}
