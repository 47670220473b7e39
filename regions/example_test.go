package regions_test

import (
	"errors"
	"fmt"
	"net/http"

	"defender-proxy/regions"
)

// A tenant whose data must stay in Europe prefers eu. From the first time that eu
// can't be reached, requests go to uk and nowhere else.
func Example() {
	settings := regions.DefaultSettings()
	settings.OnChange = func(c regions.Change) { fmt.Printf("%s: %s (%s)\n", c.Region, c.Event, c.Reason) }
	monitor := regions.NewMonitor(settings, http.DefaultTransport) // probes nothing until Run

	commercial := regions.Clouds()[0]
	pool, err := monitor.Pool(commercial, "mde", []regions.Name{regions.EU, regions.UK}, regions.EU)
	if err != nil {
		fmt.Println(err)
		return
	}
	eu, reason := pool.Current()
	fmt.Println(eu.URL, reason)

	for range 3 {
		monitor.Report(eu, regions.ConnectFailed(errors.New("connection refused")))
	}
	for _, e := range pool.Order() {
		fmt.Println(e.URL)
	}
	// Output:
	// https://eu.api.security.microsoft.com preferred by the configuration
	// uk: chosen (not measured yet; eu is suspect: no connection: connection refused)
	// eu: went out (no connection: connection refused)
	// https://uk.api.security.microsoft.com
	// https://eu.api.security.microsoft.com
}
