package simulator

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/gorilla/mux"
)

// credentialRoutes are the parts of the control port that concern keys, people
// and the services around credentials.
func (s *Simulator) credentialRoutes(rt, change *mux.Router) {
	rt.HandleFunc("/refused", func(w http.ResponseWriter, _ *http.Request) {
		writeJSON(w, http.StatusOK, members{{"counts", s.RefusedCounts()}, {"last", s.Refused()}})
	}).Methods(http.MethodGet)

	change.HandleFunc("/rotate-keys", action204(func(*http.Request, []byte) error { return s.RotateSigningKey() }))
	change.HandleFunc("/forget-old-keys", action204(func(*http.Request, []byte) error { s.ForgetOldKeys(); return nil }))
	change.HandleFunc("/signed-in", withUser(func(_ *http.Request, user string) error { s.SetSignedInUser(user); return nil }))
	change.HandleFunc("/refresh-tokens/revoke", withUser(func(_ *http.Request, user string) error { s.RevokeRefreshTokens(user); return nil }))
	change.HandleFunc("/refresh-tokens/expire", withUser(func(_ *http.Request, user string) error { s.ExpireRefreshTokens(user); return nil }))
	change.HandleFunc("/refresh-tokens/single-use", action204(func(_ *http.Request, body []byte) error {
		var in struct {
			On bool `json:"on"`
		}
		return firstError(decodeStrict(body, &in), func() error { s.SetSingleUseRefreshTokens(in.On); return nil })
	}))
	change.HandleFunc("/devices/{code}", withUser(func(r *http.Request, user string) error { return s.ApproveDevice(mux.Vars(r)["code"], user) }))
	rt.HandleFunc("/devices/{code}", action204(func(r *http.Request, _ []byte) error { return s.DeclineDevice(mux.Vars(r)["code"]) })).Methods(http.MethodDelete)

	change.HandleFunc("/workload-token", func(w http.ResponseWriter, r *http.Request) {
		var in struct {
			Subject  string `json:"subject"`
			Audience string `json:"audience"`
			Life     string `json:"life"`
		}
		token := ""
		err := readControl(w, r, &in)
		if err == nil {
			if in.Audience == "" {
				in.Audience = exchangeAudience
			}
			if in.Life == "" {
				in.Life = "1h"
			}
			var life time.Duration
			if life, err = time.ParseDuration(in.Life); err == nil {
				token = s.WorkloadTokenFor(in.Subject, in.Audience, life)
			}
		}
		if err != nil {
			writeJSON(w, http.StatusBadRequest, map[string]string{"error": err.Error()})
			return
		}
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		fmt.Fprint(w, token)
	})

	for path, set := range map[string]func(Fault) error{"/vault/fault": s.SetVault, "/identity/fault": s.SetIdentity} {
		change.HandleFunc(path, action204(func(_ *http.Request, body []byte) error {
			f, err := readFault(body)
			return firstError(err, func() error { return set(f) })
		}))
		rt.HandleFunc(path, action204(func(*http.Request, []byte) error { return set(Fault{}) })).Methods(http.MethodDelete)
	}
	change.HandleFunc("/identity/forget", action204(func(*http.Request, []byte) error { s.ForgetIdentityTokens(); return nil }))
	change.HandleFunc("/vault/secrets/{name}", action204(s.changeSecret))
	rt.HandleFunc("/vault/secrets/{name}", action204(func(r *http.Request, _ []byte) error {
		s.DeleteVaultSecret(mux.Vars(r)["name"])
		return nil
	})).Methods(http.MethodDelete)
}

// readControl reads a bounded body.
func readControl(w http.ResponseWriter, r *http.Request, into any) error {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxControlBody))
	d.DisallowUnknownFields()
	return d.Decode(into)
}

// withUser is action204 for bodies that name a user.
func withUser(act func(r *http.Request, user string) error) http.HandlerFunc {
	return action204(func(r *http.Request, body []byte) error {
		var in struct {
			User string `json:"user"`
		}
		return firstError(decodeStrict(body, &in), func() error { return act(r, in.User) })
	})
}

// changeSecret adds a version of a secret when there is a value, and switches
// the newest one.
func (s *Simulator) changeSecret(r *http.Request, body []byte) error {
	var in struct {
		Value   *string   `json:"value"`
		Expires time.Time `json:"expires"`
		Enabled *bool     `json:"enabled"`
	}
	if err := decodeStrict(body, &in); err != nil {
		return err
	}
	name := mux.Vars(r)["name"]
	if in.Value != nil {
		if _, err := s.SetVaultSecret(name, *in.Value, in.Expires); err != nil {
			return err
		}
	}
	if in.Enabled != nil {
		return s.SetVaultSecretEnabled(name, *in.Enabled)
	}
	return nil
}
