package approval

import (
	"strings"
	"testing"
)

func TestCommentOf(t *testing.T) {
	long := strings.Repeat("x", MaxComment+1)
	for _, c := range []struct {
		name, kind, body, want, err string
	}{
		{"nothing", "", "", "", ""},
		{"nothing as JSON", "application/json", "", "", ""},
		{"a form", "application/x-www-form-urlencoded", "comment=seen+it%21", "seen it!", ""},
		{"a form without a type", "", "comment=x&other=y", "x", ""},
		{"a form without a comment", "", "other=y", "", ""},
		{"JSON", "Application/JSON; charset=utf-8", ` {"comment":" seen it "} `, "seen it", ""},
		{"an empty object", "application/json", "{}", "", ""},
		{"another member", "application/json", `{"coment":"x"}`, "", "form"},
		{"no object", "application/json", `"x"`, "", "form"},
		{"two objects", "application/json", `{"comment":"x"}{}`, "", "does not end"},
		{"no form", "", "comment=%zz", "", "neither"},
		{"a long one", "", "comment=" + long, "", "500"},
		{"a long one as JSON", "application/json", `{"comment":"` + long + `"}`, "", "500"},
	} {
		got, err := CommentOf(c.kind, []byte(c.body))
		if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: got %q, %v; want %q and %q", c.name, got, err, c.want, c.err)
		}
	}
}

func FuzzCommentOf(f *testing.F) {
	f.Add("application/json", []byte(`{"comment":"seen"}`))
	f.Add("application/x-www-form-urlencoded", []byte("comment=seen+it&comment=again"))
	f.Add("", []byte("%"))
	f.Fuzz(func(t *testing.T, kind string, body []byte) {
		got, err := CommentOf(kind, body)
		if len(got) > MaxComment || err != nil && got != "" || got != strings.TrimSpace(got) || len(body) == 0 && (got != "" || err != nil) {
			t.Errorf("%q %q gives %q, %v", kind, body, got, err)
		}
	})
}
