package clients

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func TestNewKey(t *testing.T) {
	sum := sha256.Sum256([]byte(goodKey))
	hash := "sha256:" + hex.EncodeToString(sum[:])
	for _, c := range []struct{ name, header, text, want string }{
		{"a key", "X-Api-Key", goodKey, ""},
		{"the hash of a key", "x-api-key", hash, ""},
		{"the hash in capitals", "X-Api-Key", "sha256:" + strings.ToUpper(hash[7:]), ""},
		{"an Authorization header", "Authorization", "Bearer " + goodKey, "space"},
		{"an Authorization header without a space", "Authorization", goodKey, ""},
		{"a hash that was cut off", "X-Api-Key", hash[:len(hash)-2], "64 hexadecimal digits"},
		{"a hash with a letter that is no digit", "X-Api-Key", hash[:len(hash)-1] + "g", "64 hexadecimal digits"},
		{"no key", "X-Api-Key", "", "0 characters"},
		{"a key that can be guessed", "X-Api-Key", "secret", "6 characters"},
		{"a key without an end", "X-Api-Key", strings.Repeat("x", 257), "257 characters"},
		{"a key with a line break", "X-Api-Key", goodKey + "\n", "space"},
		{"no header", "", goodKey, "not the name"},
		{"a header with an underscore", "X_Api_Key", goodKey, "not the name"},
		{"a header with a colon", "X-Api-Key:", goodKey, "not the name"},
		{"a header of the framing", "transfer-encoding", goodKey, "meaning of its own"},
		{"Host", "host", goodKey, "meaning of its own"},
		{"Cookie", "Cookie", goodKey, "meaning of its own"},
		{"an address's header", "X-Forwarded-For", goodKey, "meaning of its own"},
		{"a preference, which goes out", "prefer", goodKey, "meaning of its own"},
		{"an id of the caller's, which goes out", "client-request-id", goodKey, "meaning of its own"},
		{"a header of OData's, which goes out", "OData-MaxVersion", goodKey, "meaning of its own"},
		{"a header of the body's, which goes out", "Content-Disposition", goodKey, "meaning of its own"},
		{"a browser's header", "sec-fetch-site", goodKey, "meaning of its own"},
	} {
		t.Run(c.name, func(t *testing.T) {
			k, err := NewKey(c.header, c.text)
			switch {
			case c.want != "":
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Fatalf("got %v, want an error with %q", err, c.want)
				}
				if c.text != "" && strings.Contains(err.Error(), c.text) {
					t.Errorf("the error repeats the key: %v", err)
				}
			case err != nil:
				t.Errorf("got %v, want none", err)
			case k.Sum != sum:
				t.Errorf("got another hash than the key's")
			}
		})
	}
}

func TestHowAKeyPrintsHidesItsHash(t *testing.T) {
	k := key(t, "x-api-key", goodKey)
	js, err := json.Marshal(k)
	if err != nil {
		t.Fatal(err)
	}
	for _, got := range []string{fmt.Sprint(k), fmt.Sprintf("%+v", k), fmt.Sprintf("%#v", k), fmt.Sprintf("%v", []Key{k}), strings.Trim(string(js), `"`)} {
		if strings.Trim(got, "[]{}") != strings.Trim("X-Api-Key: [redacted]", "[]") && got != "X-Api-Key: [redacted]" {
			t.Errorf("got %s, want the header alone", got)
		}
	}
}
