package redact

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"regexp"
	"strings"
	"testing"
)

// planted are secrets in the places where each kind is met. @ is where the secret
// itself stands, which nothing may show whatever stands around the place.
var planted = []struct{ place, secret string }{
	{"@", aToken},
	{"@", aSecret},
	{" @", aRefresh},
	{"Bearer @", "abc-Def.123~+/="},
	{"client_secret=@", "hunter2-hunter2"},
	{"&access_token=@", "hunter2-hunter2"},
	{"?sig=@", "Ab%2Fc%2Bd%3Dhunter2"},
	{"/x?se=@", "2026-hunter2"},
	{"\nCookie: s=@", "hunter2; hunter2=\"hunter2\""},
	{"https://u:@@proxy.corp:3128", "hunter2"},
	{`{"password":"@"}`, "hunter2, hunter2"},
	{`{\"password\":\"@\"}`, "hunter2, hunter2"},
	{"-----BEGIN PRIVATE KEY-----\n@\n-----END PRIVATE KEY-----", "hunter2/hunter2"},
}

// never is what no text may hold in the end: a second, slower reading of the same
// rules.
var never = []*regexp.Regexp{
	regexp.MustCompile(`[0-9]Q~[A-Za-z0-9._~-]{20}`),
	regexp.MustCompile(`(?i)sig=[A-Za-z0-9%]`),
	regexp.MustCompile(`(?i)(secret|password|passwd|access_token|refresh_token|assertion)(=|%3d)[A-Za-z0-9%]`),
	regexp.MustCompile(`(?i)"(client_secret|password|access_token)":"[A-Za-z0-9]`),
	regexp.MustCompile(`(?i)bearer [0-9][A-Za-z0-9._~-]{20}`),
	regexp.MustCompile(`&(se|sp|sv|sr|skoid)=[A-Za-z0-9]`),
	regexp.MustCompile(`://[A-Za-z0-9]+:[A-Za-z0-9]+@`),
	regexp.MustCompile(`(?i)(^|\n)(proxy-)?authorization: ?[A-Za-z0-9]`),
}

// FuzzText plants each secret between before and after: it is gone, and nothing that
// never may stay is there.
func FuzzText(f *testing.F) {
	for i, s := range sentences {
		f.Add(s, " and then", uint8(i))
	}
	for i, s := range []string{`x="`, `'`, `{"a":"`, `\`, "https://", "password=", "Bearer ", "?", "&", "%", "ey", "0.A", "-----BEGIN PRIVATE KEY-----", "Authorization:", "=", "[redacted]"} {
		f.Add(s, s, uint8(i))
		f.Add("", s, uint8(i+1))
	}
	f.Fuzz(func(t *testing.T, before, after string, n uint8) {
		cleared(t, before+after)
		p := planted[int(n)%len(planted)]
		if strings.Contains(before+after, "hunter2") {
			return // the secret may stand there where nothing tells it
		}
		got := cleared(t, before+strings.Replace(p.place, "@", p.secret, 1)+after)
		if strings.Contains(got, p.secret) {
			t.Errorf("%q shows the secret of %s", got, p.place)
		}
	})
}

func cleared(t *testing.T, s string) string {
	t.Helper()
	got := Text(s)
	for _, re := range never {
		if found := re.FindString(got); found != "" {
			t.Errorf("%q becomes %q, which has %q", s, got, found)
		}
	}
	for _, at := range beginnings.FindAllStringIndex(got, -1) {
		word := opaqueWord.FindString(got[at[0]:])
		alone := at[0] == 0 || opaqueWord.FindString(got[at[0]-1:at[0]]) == ""
		b, _ := base64.RawURLEncoding.DecodeString(word[:len(word)/4*4])
		if name := memberName.FindSubmatch(b); name != nil && (alone && len(name[0]) == len(b) || len(name[1]) > 0 && len(name[0]) < 46) {
			t.Errorf("%q becomes %q, which has the beginning of a token, %s", s, got, b)
		}
	}
	return got
}

// The beginning of a token, and what it stands for as far as that is the name of a
// member, with the quotation mark behind it.
var (
	beginnings = regexp.MustCompile(`eyJ[A-Za-z0-9_-]{5}`)
	opaqueWord = regexp.MustCompile(`^[A-Za-z0-9_-]+`)
	memberName = regexp.MustCompile(`^\{"[A-Za-z0-9_]*("?)`)
)

// FuzzQuery: what is left of a query is the names, the values that a few options
// take, and nothing that a second pass would change.
func FuzzQuery(f *testing.F) {
	for _, s := range []string{"$top=1&$filter=x", "sv=1&sig=x", "a&b=&=c&%24top=1&$select=a,b%20c", "$top=[redacted]&…", strings.Repeat("a=b&", 40), "x=" + aToken} {
		f.Add(s)
	}
	value := regexp.MustCompile(`^(\[redacted\]|[0-9]{0,9}|true|false|consent|code|(?:[A-Za-z_*,/+]|%20|%2[cCfF]|[0-9]{1,3})*|[0-9a-fA-F-]{36})$`)
	name := regexp.MustCompile(`^(\[redacted\]|…|([$@]|%24|%40)?[A-Za-z_.-]{0,40})$`)
	f.Fuzz(func(t *testing.T, raw string) {
		got := Query(raw)
		if again := Query(got); again != got {
			t.Errorf("%q becomes %q, and that %q", raw, got, again)
		}
		if n := strings.Count(got, "&"); n > 32 || n != strings.Count(raw, "&") && !strings.HasSuffix(got, "…") {
			t.Errorf("%q becomes %q", raw, got)
		}
		for p := range strings.SplitSeq(got, "&") {
			n, v, _ := strings.Cut(p, "=")
			if !name.MatchString(n) || !value.MatchString(v) {
				t.Errorf("%q becomes %q, which has %q", raw, got, p)
			}
		}
	})
}

// FuzzWriter: an object stays an object with the same names and numbers, the
// pieces in which it comes do not matter, and no secret in a string of it is shown.
func FuzzWriter(f *testing.F) {
	for i, s := range sentences {
		f.Add(s, uint8(i), uint16(3))
	}
	f.Add("\\\"\n\x00<&>\xff\u2028", uint8(9), uint16(1))
	f.Fuzz(func(t *testing.T, around string, n uint8, split uint16) {
		p := planted[int(n)%len(planted)]
		place := strings.Replace(p.place, "@", p.secret, 1)
		in := map[string]any{"a": around, "b": []any{1, nil, around + place + around}, "c": map[string]any{"d": place, "password": place}, "e": 1.5}
		b, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		b = append(b, '\n')
		var whole, parts bytes.Buffer
		if _, err := Writer(&whole).Write(b); err != nil {
			t.Fatal(err)
		}
		w := Writer(&parts)
		for left := b; len(left) > 0; {
			k := min(len(left), 1+int(split)%len(b))
			if _, err := w.Write(left[:k]); err != nil {
				t.Fatal(err)
			}
			left = left[k:]
		}
		if whole.String() != parts.String() {
			t.Errorf("in one piece %q\nin pieces   %q", whole.String(), parts.String())
		}
		var got map[string]any
		if err := json.Unmarshal(whole.Bytes(), &got); err != nil || strings.Count(whole.String(), "\n") != 1 {
			t.Fatalf("%q becomes %q: %v", b, whole.String(), err)
		}
		c, _ := got["c"].(map[string]any)
		if len(got) != 4 || got["e"] != 1.5 || len(got["b"].([]any)) != 3 || len(c) != 2 || c["password"] != mark {
			t.Errorf("%q becomes %q", b, whole.String())
		}
		if d, _ := c["d"].(string); strings.Contains(d, p.secret) {
			t.Errorf("%q shows a secret", whole.String())
		}
	})
}
