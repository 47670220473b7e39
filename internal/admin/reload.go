package admin

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// Reload reads the configuration anew and puts it into force. It waits while
// another reload is under way, and may be called concurrently. Its error is a
// *FaultyError where the configuration that was in force stays so, and ctx's
// where ctx ended before its turn.
type Reload func(context.Context) (*Reloaded, error)

// Reloaded is what a reload changed.
type Reloaded struct {
	// Tenants is how many there are now; the lists are names.
	Tenants int      `json:"tenants"`
	Added   []string `json:"added"`
	Changed []string `json:"changed"`
	Removed []string `json:"removed"`
	// NeedsRestart are the keys whose new values take effect only when the process
	// starts anew.
	NeedsRestart []string `json:"needs_restart,omitempty"`
	// Impaired and Warnings are what is wrong with single tenants' credentials, and
	// what is unwise, each with its place.
	Impaired []string `json:"impaired,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
}

// FaultyError says what is wrong with a configuration, so that it was not put
// into force.
type FaultyError struct {
	// Faults are never empty; each has its place, and none a secret.
	Faults []string
}

// Error gives one fault a line.
func (e *FaultyError) Error() string { return strings.Join(e.Faults, "\n") }

func (p *pages) reload(w http.ResponseWriter, r *http.Request) {
	done, err := p.Reload(r.Context())
	var faulty *FaultyError
	switch {
	case err == nil:
		writeJSON(w, http.StatusOK, done)
	case errors.As(err, &faulty):
		message := fmt.Sprintf("The configuration has %d faults, the first being: %s. The one that was in force serves on.", len(faulty.Faults), faulty.Faults[0])
		if len(faulty.Faults) == 1 {
			message = fmt.Sprintf("The configuration has a fault: %s. The one that was in force serves on.", faulty.Faults[0])
		}
		writeJSON(w, http.StatusUnprocessableEntity, map[string]any{
			"error": map[string]any{"code": "InvalidConfiguration", "message": message, "faults": faulty.Faults},
		})
	default:
		w.Header().Set("Retry-After", "5")
		refuse(w, http.StatusServiceUnavailable, "ReloadUnavailable", "Another reload is under way, or the proxy is stopping. Nothing was changed.")
	}
}
