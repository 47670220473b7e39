package policy_test

import (
	"fmt"

	"defender-proxy/policy"
)

// A client group may read, and isolate machines. The tenant's token can read
// alerts and isolate.
func Example() {
	catalog, err := policy.NewCatalog(nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	grants, err := catalog.Grants(policy.Entries("read", "machines.isolate"), policy.Entries("libraryfiles.*"))
	if err != nil {
		fmt.Println(err)
		return
	}
	permits := catalog.Permits([]string{"Alert.Read.All", "Machine.Isolate"}, nil)
	p := &policy.Policy{Catalog: catalog}

	for _, request := range [][2]string{
		{"GET", "/api/alerts"},
		{"GET", "/api/machines"},
		{"POST", "/api/v1.0/Machines/1e5b/Isolate"},
		{"POST", "/api/machines/1e5b/offboard"},
		{"GET", "/api/libraryfiles"},
		{"DELETE", "/api/alerts"},
		{"GET", "/api/secrets"},
	} {
		op, err := p.Operation(request[0], request[1])
		if err != nil {
			fmt.Println(request[0], request[1], "→", err)
			continue
		}
		d := p.Decide(op, grants, policy.Situation{}, permits)
		fmt.Println(op.ID, "→", d.Verdict)
	}
	// Output:
	// alerts.list → allowed
	// machines.list → missing permission
	// machines.isolate → allowed
	// machines.offboard → not granted
	// libraryfiles.list → not granted
	// DELETE /api/alerts → policy: the path allows only GET, HEAD
	// GET /api/secrets → policy: the path is in no operation of the catalog
}
