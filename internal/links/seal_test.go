package links

import (
	"bytes"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
	"time"
)

const sasLink = "https://prod.blob.core.windows.net/exports/a%20b/part-00000.json.gz?sv=2023-11-03&se=2026-11-21T12%3A00%3A00Z&sr=b&sp=r&sig=abc%2Fdef%3D"

var (
	keyOne, keyTwo = bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte("2"), 64)
	noon           = time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
)

func sealOne(t testing.TB, s *Sealer, bound ...string) string {
	t.Helper()
	sealed, err := s.Seal(Download{URL: sasLink, Operation: "machines.softwareInventoryExport", Expires: noon}, bound...)
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

func TestASealedLinkOpensAsItWasMade(t *testing.T) {
	s := NewSealer([][]byte{keyOne})
	sealed := sealOne(t, s, "contoso", "soc")
	if strings.Trim(sealed, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
		t.Errorf("it is not base64url: %s", sealed)
	}
	got, err := s.Open(sealed, noon.Add(-time.Second), "contoso", "soc")
	want := Download{URL: sasLink, Operation: "machines.softwareInventoryExport", Expires: noon}
	if err != nil || got.URL != want.URL || got.Operation != want.Operation || !got.Expires.Equal(want.Expires) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	if again := sealOne(t, s, "contoso", "soc"); again == sealed {
		t.Error("the same link is sealed to the same text twice")
	}
	plain, err := base64.RawURLEncoding.DecodeString(sealed)
	if err != nil || bytes.Contains(plain, []byte("windows")) || bytes.Contains(plain, []byte("sig=")) {
		t.Errorf("the link can be read in what is sealed: %q, %v", plain, err)
	}
	// Another Sealer with the same key stands for another process with it.
	if _, err := NewSealer([][]byte{bytes.Clone(keyOne)}).Open(sealed, noon.Add(-time.Hour), "contoso", "soc"); err != nil {
		t.Errorf("another process with the same key: %v", err)
	}
}

func TestWhatIsNotSealedForThisCallerDoesNotOpen(t *testing.T) {
	s := NewSealer([][]byte{keyOne})
	sealed := sealOne(t, s, "contoso", "soc")
	early := noon.Add(-time.Minute)
	last := sealed[len(sealed)-1:]
	for name, c := range map[string]struct {
		sealer *Sealer
		sealed string
		bound  []string
		now    time.Time
		want   error
	}{
		"another tenant":           {s, sealed, []string{"fabrikam", "soc"}, early, ErrSeal},
		"another client group":     {s, sealed, []string{"contoso", "guests"}, early, ErrSeal},
		"names that join the same": {s, sealed, []string{"contosos", "oc"}, early, ErrSeal},
		"the names turned round":   {s, sealed, []string{"soc", "contoso"}, early, ErrSeal},
		"no names":                 {s, sealed, nil, early, ErrSeal},
		"one name more":            {s, sealed, []string{"contoso", "soc", ""}, early, ErrSeal},
		"another key":              {NewSealer([][]byte{keyTwo}), sealed, []string{"contoso", "soc"}, early, ErrSeal},
		"no key":                   {NewSealer(nil), sealed, []string{"contoso", "soc"}, early, ErrSeal},
		"nothing":                  {s, "", []string{"contoso", "soc"}, early, ErrSeal},
		"no base64url":             {s, sealed + "!", []string{"contoso", "soc"}, early, ErrSeal},
		"padding":                  {s, sealed + "==", []string{"contoso", "soc"}, early, ErrSeal},
		"a line's end within":      {s, sealed[:20] + "\n" + sealed[20:], []string{"contoso", "soc"}, early, ErrSeal},
		"the end cut off":          {s, strings.TrimSuffix(sealed, last), []string{"contoso", "soc"}, early, ErrSeal},
		"at its end":               {s, sealed, []string{"contoso", "soc"}, noon, ErrExpired},
		"long after":               {s, sealed, []string{"contoso", "soc"}, noon.AddDate(1, 0, 0), ErrExpired},
		"expired, of another":      {s, sealed, []string{"fabrikam", "soc"}, noon.AddDate(1, 0, 0), ErrSeal},
	} {
		d, err := c.sealer.Open(c.sealed, c.now, c.bound...)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
		if (d.URL != "") != (c.want == ErrExpired) {
			t.Errorf("%s: the URL is %q", name, d.URL)
		}
	}
}

// Every bit counts: those of the nonce, of the text, of the tag, and those of the last
// character that stand for nothing.
func TestNoBitOfASealedLinkCanBeAltered(t *testing.T) {
	s := NewSealer([][]byte{keyOne})
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	for n := range 3 { // every length modulo three
		sealed, err := s.Seal(Download{URL: sasLink[n:], Expires: noon})
		if err != nil {
			t.Fatal(err)
		}
		for i := range sealed {
			for bit := range 6 {
				altered := []byte(sealed)
				altered[i] = alphabet[strings.IndexByte(alphabet, sealed[i])^1<<bit]
				if _, err := s.Open(string(altered), noon.Add(-time.Minute)); !errors.Is(err, ErrSeal) {
					t.Fatalf("bit %d of character %d of %d: %v", bit, i, len(sealed), err)
				}
			}
		}
	}
}

func TestAKeyIsChangedByPuttingTheNewOneInFront(t *testing.T) {
	before := sealOne(t, NewSealer([][]byte{keyOne}), "contoso", "soc")
	both := NewSealer([][]byte{keyTwo, keyOne})
	if _, err := both.Open(before, noon.Add(-time.Minute), "contoso", "soc"); err != nil {
		t.Errorf("a link of before: %v", err)
	}
	after := sealOne(t, both, "contoso", "soc")
	if _, err := NewSealer([][]byte{keyTwo}).Open(after, noon.Add(-time.Minute), "contoso", "soc"); err != nil {
		t.Errorf("a link of after, once the old key is gone: %v", err)
	}
	if _, err := NewSealer([][]byte{keyOne}).Open(after, noon.Add(-time.Minute), "contoso", "soc"); !errors.Is(err, ErrSeal) {
		t.Errorf("a link of after, with the old key alone: %v", err)
	}
}

func TestWithoutAKeyNothingIsSealed(t *testing.T) {
	if sealed, err := NewSealer(nil).Seal(Download{URL: sasLink}); err == nil || sealed != "" {
		t.Errorf("got %q, %v", sealed, err)
	}
}

func TestALinkExpiresWhenItSaysSo(t *testing.T) {
	now := time.Date(2026, 11, 21, 9, 0, 0, 0, time.UTC)
	hour := now.Add(time.Hour)
	at := func(h, m, s, ns int) time.Time { return time.Date(2026, 11, 21, h, m, s, ns, time.UTC) }
	for query, want := range map[string]time.Time{
		"se=2026-11-21T12%3A00%3A00Z":                                at(12, 0, 0, 0),
		"sv=1&st=2026-11-21T08:00:00Z&se=2026-11-21T12:00:00Z&sig=x": at(12, 0, 0, 0),
		"se=2026-11-21":                         at(0, 0, 0, 0),
		"se=2026-11-21T12:30Z":                  at(12, 30, 0, 0),
		"se=2026-11-21T12:30":                   at(12, 30, 0, 0),
		"se=2026-11-21T12:30:15.1234567Z":       at(12, 30, 15, 123456700),
		"se=2026-11-21T12:30:15.5%2B02:00":      at(10, 30, 15, 5e8),
		"se=2026-11-21T12:30:15+02:00":          at(10, 30, 15, 0),
		"se=2026-11-21T07:30-05:00":             at(12, 30, 0, 0),
		"se=2020-01-01T00:00:00Z":               time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC),
		"se=2026-11-21T12:00:00Z&se=2030-01-01": at(12, 0, 0, 0),
		"":                                      hour,
		"token=abc":                             hour,
		"se=":                                   hour,
		"se=tomorrow":                           hour,
		"se=2026-13-41T99:99Z":                  hour,
		"se=2026-11-21T12:00,5Z":                hour,
		"se=%zz":                                hour,
		"use=2030-01-01":                        hour,
	} {
		if got := Expiry(query, now); !got.Equal(want) {
			t.Errorf("%q: got %v, want %v", query, got.UTC(), want)
		}
	}
}

// FuzzOpen: nothing opens but what Seal made, and that for whom it was made.
func FuzzOpen(f *testing.F) {
	s := NewSealer([][]byte{keyOne, keyTwo})
	f.Add(sealOne(f, s, "a", "b"), "a", "b", sasLink, int64(1))
	f.Add("", "", "", "", int64(0))
	f.Add("AAAA", "contoso", "", "https://x", int64(-1))
	f.Fuzz(func(t *testing.T, sealed, one, two, url string, expires int64) {
		// The seeds' own are of another nonce each run, so nothing that is handed in is ours.
		if d, err := s.Open(sealed, time.Unix(0, 0), one, two); err == nil && d.URL != sasLink {
			t.Fatalf("Open(%q) = %+v", sealed, d)
		}
		made, err := s.Seal(Download{URL: url, Operation: one, Expires: time.Unix(expires, 0)}, one, two)
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.Open(made, time.Unix(min(expires, 1<<40)-1, 0), one, two)
		if expires > -1<<40 && expires < 1<<40 && (err != nil || got.URL != url || got.Operation != one || got.Expires.Unix() != expires) {
			t.Fatalf("what was sealed opens as %+v, %v", got, err)
		}
		if one != two {
			if _, err := s.Open(made, time.Unix(0, 0), two, one); !errors.Is(err, ErrSeal) {
				t.Fatalf("it opens for another: %v", err)
			}
		}
		if sealed != "" {
			altered := made[:len(made)/2] + sealed[:1] + made[len(made)/2+1:]
			if _, err := s.Open(altered, time.Unix(0, 0), one, two); altered != made && !errors.Is(err, ErrSeal) {
				t.Fatalf("altered, it opens: %v", err)
			}
		}
	})
}

func BenchmarkSeal(b *testing.B) {
	s := NewSealer([][]byte{keyOne})
	b.ReportAllocs()
	for b.Loop() {
		sealOne(b, s, "contoso", "soc")
	}
}

func BenchmarkOpen(b *testing.B) {
	s := NewSealer([][]byte{keyOne})
	sealed := sealOne(b, s, "contoso", "soc")
	now := noon.Add(-time.Minute)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Open(sealed, now, "contoso", "soc"); err != nil {
			b.Fatal(err)
		}
	}
}
