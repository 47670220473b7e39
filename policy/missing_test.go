package policy

import (
	"slices"
	"strings"
	"testing"
)

func TestMissingTellsWhatIsGrantedAndNotPermitted(t *testing.T) {
	c, err := NewCatalog(nil)
	if err != nil {
		t.Fatal(err)
	}
	group := func(name string, allow ...string) Grantee {
		g, err := c.Grants(Entries(allow...), nil)
		if err != nil {
			t.Fatal(err)
		}
		return Grantee{name, g}
	}
	soc, script := group("soc", "alerts.list", "machines.isolate"), group("script", "machines.isolate")
	reader := c.Permits([]string{"Alert.Read.All"}, nil)

	for _, tc := range []struct {
		name    string
		service Service
		groups  []Grantee
		permits *Permits
		want    string // any of | operations | clients, by ;
	}{
		{"nobody is granted anything", ServiceMDE, nil, reader, ""},
		{"all that is granted is permitted", ServiceMDE, []Grantee{group("a", "alerts.list")}, reader, ""},
		{"two groups lack the same", ServiceMDE, []Grantee{soc, script}, reader, "Machine.Isolate|machines.isolate|soc script"},
		{"another service", ServiceGraph, []Grantee{soc, script}, reader, ""},
		{"a user's token needs delegated permissions", ServiceMDE, []Grantee{group("a", "alerts.list")}, c.Permits(nil, []string{"profile"}), "Alert.Read Alert.ReadWrite|alerts.list|a"},
		{"a token without any permission", ServiceMDE, []Grantee{script}, c.Permits(nil, nil), "Machine.Isolate|machines.isolate|script"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var got []string
			for _, m := range c.Missing(tc.service, tc.groups, Situation{}, nil, tc.permits) {
				got = append(got, joined(m.AnyOf, " ")+"|"+strings.Join(m.Operations, " ")+"|"+strings.Join(m.Clients, " "))
			}
			if s := strings.Join(got, ";"); s != tc.want {
				t.Errorf("got %s, want %s", s, tc.want)
			}
		})
	}
	if !c.Uses(ServiceMDE, []Grantee{soc}, Situation{}, nil) || c.Uses(ServiceGraph, []Grantee{soc, script}, Situation{}, nil) || c.Uses(ServiceMDE, nil, Situation{}, nil) {
		t.Error("the services in use are wrong")
	}
}

// Every operation that nobody is permitted is told once, whatever it needs.
func TestMissingLeavesNothingOut(t *testing.T) {
	c, err := NewCatalog(nil)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, class := range Classes() {
		all = append(all, string(class))
	}
	g, err := c.Grants(Entries(all...), nil)
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	for _, s := range Services() {
		for _, m := range c.Missing(s, []Grantee{{"all", g}}, Situation{}, nil, c.Permits(nil, nil)) {
			told = append(told, m.Operations...)
		}
	}
	var want []string
	for _, op := range c.Operations() {
		want = append(want, op.ID)
	}
	slices.Sort(told)
	slices.Sort(want)
	if !slices.Equal(told, want) {
		t.Errorf("told %d, want %d", len(told), len(want))
	}
}

func TestGrantAdviceForAnIdentityNamesNoApplication(t *testing.T) {
	if s := GrantAdvice(ServiceGraph, "", "application"); strings.Contains(s, "appId") || !strings.Contains(s, "Microsoft Graph") || !strings.Contains(s, "managed identity") {
		t.Errorf("got %s", s)
	}
	if s := GrantAdvice(ServiceMDE, "22222222-2222-2222-2222-222222222222", "delegated"); !strings.Contains(s, "appId/22222222-2222-2222-2222-222222222222") || !strings.Contains(s, "WindowsDefenderATP, delegated permissions") {
		t.Errorf("got %s", s)
	}
}
