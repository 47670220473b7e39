package credential

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"
)

func FuzzLoad(f *testing.F) {
	s, o := fileStore(f)
	if err := s.Save(storeLogin); err != nil {
		f.Fatal(err)
	}
	good, err := os.ReadFile(o.File)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(bytes.ToUpper(good))
	f.Add(append([]byte{' '}, good...))
	f.Add(bytes.Replace(good, []byte(`"version":1`), []byte(`"version":1,"version":1`), 1))
	f.Add([]byte(storeMark + `"version":1,"name":"contoso","cloud":"commercial","tenant":"` + storeTenant + `","client_id":"` + storeClient + `","sealed":"AAAA"}` + "\n"))
	f.Add([]byte("null"))
	// Each worker is a process of its own, and each call has a file of its own.
	f.Fuzz(func(t *testing.T, data []byte) {
		o := o
		o.File = filepath.Join(ownFolder(t), "store")
		if err := os.WriteFile(o.File, data, 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := OpenStore(o).load(context.Background(), again)
		if (err == nil) != bytes.Equal(data, good) {
			t.Fatalf("got %v, %v for data that is the good store: %v", l, err, bytes.Equal(data, good))
		}
		if err != nil && l != (Login{}) {
			t.Fatalf("got a login with the error %v", err)
		}
	})
}
