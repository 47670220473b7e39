package integration

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"strings"
	"testing"
)

// Two tools share a machine. One of them only reads; the other isolates machines,
// and has a key for it that the configuration knows by its hash alone. Whoever lacks
// the key is the group that has none. Of the key nothing is seen anywhere else: not
// in a log, not in a record, not at Microsoft's side, though the operator lets the
// header through.
func TestALocalKeySetsOneToolApart(t *testing.T) {
	t.Parallel()
	const key = "canary-local-key-5f2d9c1b"
	sum := sha256.Sum256([]byte(key))
	w := newWorld(t, respond(func(c object) {
		inRegions(c, "eu")
		c["clients"] = []object{
			{"name": "responder", "from": []string{"127.0.0.0/8"}, "headers": object{"X-Api-Key": "sha256:" + hex.EncodeToString(sum[:])}, "allow": []string{"read", "respond"}},
			{"name": "reader", "from": []string{"127.0.0.0/8"}, "allow": []string{"read"}},
		}
	}))
	machines := w.get("/api/machines?$top=2").page(t).Value // one is isolated once
	const body = `{"Comment":"seen in the log","IsolationType":"Full"}`
	for i, c := range []struct {
		name   string
		header []string
		status int
		code   string
		client string
	}{
		{"the key", []string{"X-Api-Key", key}, http.StatusCreated, "", "responder"},
		{"the key in another letter case of the header", []string{"x-api-key", key}, http.StatusCreated, "", "responder"},
		{"no key", nil, http.StatusForbidden, "NotGranted", "reader"},
		{"another key", []string{"X-Api-Key", key + "0"}, http.StatusForbidden, "NotGranted", "reader"},
		{"the hash in the place of the key", []string{"X-Api-Key", "sha256:" + hex.EncodeToString(sum[:])}, http.StatusForbidden, "NotGranted", "reader"},
		{"two keys", []string{"X-Api-Key", key, "X-Api-Key", key}, http.StatusForbidden, "NotGranted", "reader"},
		{"the key in another header", []string{"Authorization", key}, http.StatusForbidden, "NotGranted", "reader"},
		{"the key in the query", nil, http.StatusForbidden, "NotGranted", "reader"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := w.in(t)
			path := "/api/machines/" + machines[i%2].ID + "/isolate"
			if c.name == "the key in the query" {
				path += "?X-Api-Key=" + key
			}
			a := w.do(http.MethodPost, path, body, append([]string{"Content-Type", "application/json"}, c.header...)...)
			expect(t, a, nil, c.status, c.code, "")
			if got := w.whoAsked(a); got.Client != c.client {
				t.Errorf("the record says %v, want client %s", got, c.client)
			}
		})
	}
	for _, r := range w.upstream() {
		for name, values := range r.Header {
			if strings.Contains(strings.Join(values, " "), key) {
				t.Errorf("Microsoft's side got the key in %s", name)
			}
		}
	}
	if strings.Contains(w.stderr.String(), key) || strings.Contains(w.stdout.String(), key) {
		t.Error("the log or the records hold the key")
	}
}
