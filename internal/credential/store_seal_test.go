package credential

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"defender-proxy/internal/tenant"
)

// goldenStore is storeLogin as version 1 keeps it, for contoso, storeTenant,
// storeClient and commercial, under the key 00 01 02 … 1f.
const goldenStore = `{"kind":"defender-proxy token store","version":1,"name":"contoso","cloud":"commercial","tenant":"1a1a1a1a-bcde-4f1f-8111-1111abcdef11","client_id":"2b2b2b2b-cdef-4a2a-9222-2222fedcba22",` +
	`"sealed":"xk60bBjXvvtT57bd8B60NhuFP9oBAF2oydTgaxygnzOlbF12kfeOX12KlKpfHVu68kX6LtLf2kWTlA0RLBSSGJy0e73tGPvOS5uOvbFloigegL+4Sq0hhAiWUNDKvk3PaDEjGRs9OJYnytIWWi3QVgAkJVJpSEmWoZIw4E2lHiB7VQ0t4yKb4Me3it5mL1ThNXciF+kw2tbybkIhKZyEPqqZzlEUmZ0lWL8Y4LOh2rvL6AyqAw=="}`

// The header says whose the store is; the encryption holds it to that.
func TestStoreWithAnotherHeaderWrittenIntoItDoesNotOpen(t *testing.T) {
	const other = "3c3c3c3c-aaaa-4bbb-8ccc-dddddddddddd"
	for _, test := range []struct {
		name, from, to string
		become         func(*StoreOptions)
	}{
		{"another tenant", storeTenant, other, func(o *StoreOptions) { o.Tenant = other }},
		{"another application", storeClient, other, func(o *StoreOptions) { o.ClientID = other }},
		{"another cloud", `"commercial"`, `"dod"`, func(o *StoreOptions) { o.Cloud = "dod" }},
		{"another name", `"contoso"`, `"admin"`, func(o *StoreOptions) { o.Name = "admin" }},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, o := filled(t)
			data, err := os.ReadFile(o.File)
			noError(t, err)
			changed := bytes.Replace(data, []byte(test.from), []byte(test.to), 1)
			if bytes.Equal(changed, data) {
				t.Fatalf("the header does not hold %s: %s", test.from, data)
			}
			noError(t, os.WriteFile(o.File, changed, 0o600))
			test.become(&o)
			_, err = OpenStore(o).Load()
			wantFault(t, err, "cannot be decrypted")
		})
	}
}

// A store that this format wrote: what it binds, the version too, stays.
func TestStoreOfThisVersionOpens(t *testing.T) {
	_, o := fileStore(t)
	noError(t, os.WriteFile(o.KeyFile, []byte("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"), 0o600))
	noError(t, os.WriteFile(o.File, []byte(goldenStore+"\n"), 0o600))
	if l, err := OpenStore(o).Load(); err != nil || l != storeLogin {
		t.Errorf("got %v, %v, want the login of long ago", l, err)
	}
}

func TestStoreOfIDsInUpperCaseIsThatOfTheSameIDs(t *testing.T) {
	_, o := fileStore(t)
	upper := o
	upper.Tenant, upper.ClientID = tenant.ID(strings.ToUpper(storeTenant)), strings.ToUpper(storeClient)
	noError(t, OpenStore(upper).Save(storeLogin))
	noError(t, OpenStore(o).Check())
	noError(t, OpenStore(upper).Check())
}

func TestStoreWithAnyByteChangedIsRefused(t *testing.T) {
	s, o := filled(t)
	data, err := os.ReadFile(o.File)
	noError(t, err)
	check := func(what string, changed []byte) {
		t.Helper()
		noError(t, os.WriteFile(o.File, changed, 0o600))
		l, err := s.Load()
		if err == nil || l != (Login{}) {
			t.Fatalf("%s: got %v and error %v, want a fault", what, l, err)
		}
		wantFault(t, err)
	}
	for i := range data {
		for _, mask := range []byte{1, 0x20, 0x80, 0xff} {
			changed := bytes.Clone(data)
			changed[i] ^= mask
			check(fmt.Sprintf("byte %d xor %#x", i, mask), changed)
		}
		check(fmt.Sprintf("without byte %d", i), append(bytes.Clone(data[:i]), data[i+1:]...))
		check(fmt.Sprintf("cut at %d", i), data[:i])
		check(fmt.Sprintf("space before %d", i), append(append(bytes.Clone(data[:i]), ' '), data[i:]...))
	}
	noError(t, os.WriteFile(o.File, data, 0o600))
	noError(t, s.Check())
}
