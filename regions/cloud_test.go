package regions

import (
	"errors"
	"maps"
	"reflect"
	"slices"
	"testing"
)

func cloud(t *testing.T, name string) Cloud {
	t.Helper()
	all := Clouds()
	i := slices.IndexFunc(all, func(c Cloud) bool { return c.Name == name })
	if i < 0 {
		t.Fatalf("no cloud %s is built in", name)
	}
	return all[i]
}

func TestTheOldNamesOfTheCommercialCloud(t *testing.T) {
	legacy, commercial := cloud(t, "commercial-legacy"), cloud(t, "commercial")
	for s, want := range map[Service]map[Name]string{
		"mde": {
			US: "https://api-us.securitycenter.microsoft.com",
			EU: "https://api-eu.securitycenter.microsoft.com",
			UK: "https://api-uk.securitycenter.microsoft.com",
			AU: "https://api-au.securitycenter.microsoft.com",
		},
		"xdr": {
			US: "https://api-us.security.microsoft.com",
			EU: "https://api-eu.security.microsoft.com",
			UK: "https://api-uk.security.microsoft.com",
		},
		"graph": {Global: "https://graph.microsoft.com"},
	} {
		if got := legacy.Endpoints[s]; !maps.Equal(got, want) {
			t.Errorf("service %s: got %v, want %v", s, got, want)
		}
	}
	if len(legacy.Endpoints) != 3 {
		t.Errorf("got the services %v, want three", slices.Collect(maps.Keys(legacy.Endpoints)))
	}
	if !maps.Equal(legacy.Audiences, commercial.Audiences) || legacy.Authority != commercial.Authority || legacy.Assumed != nil {
		t.Errorf("got %+v, want what tokens need as in %+v", legacy, commercial)
	}
	if !slices.Equal(legacy.BlobHosts, commercial.BlobHosts) {
		t.Errorf("blob hosts are %v, want %v", legacy.BlobHosts, commercial.BlobHosts)
	}

	m := NewMonitor(steady(), &network{})
	if got := order(mustPool(t, m, legacy, "xdr", []Name{EU, AU}, AU)); got != "eu" {
		t.Errorf("xdr, where only mde has au: the order is %s, want eu", got)
	}
	if _, err := m.Pool(legacy, "mde", []Name{SWA}, ""); !errors.Is(err, ErrUnknownRegion) {
		t.Errorf("a region without an old name: got %v, want %v", err, ErrUnknownRegion)
	}
}

// What a caller does to one of the clouds changes none of the others.
func TestTheBuiltInCloudsShareNothing(t *testing.T) {
	want := Clouds()
	for i := range want {
		all := Clouds()
		c := all[i]
		for _, urls := range c.Endpoints {
			clear(urls)
		}
		clear(c.Audiences)
		clear(c.Assumed)
		_ = append(c.BlobHosts[:0], "evil.example")
		_ = append(c.BlobHosts, "evil.example")
		for j := range all {
			if i != j && !reflect.DeepEqual(all[j], want[j]) {
				t.Errorf("a change of %s changed %s: got %+v, want %+v", c.Name, all[j].Name, all[j], want[j])
			}
		}
	}
}
