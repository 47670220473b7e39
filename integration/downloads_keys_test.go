package integration

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"

	"defender-proxy/internal/simulator"
)

// Links are kept by those who got them: a job has fetched half of its files when its
// proxy goes away. With a key that all replicas have, and the next process too, the
// others take over, and the key can be changed while links are on their way. Without
// one, links end with the process, and say so.
func TestWhoOpensALink(t *testing.T) {
	t.Parallel()
	const first, second = "first-key-first-key-first-key-first-key", "second-key-second-key-second-key-second"
	w := simulated(t, relaying(object{"keys": []object{{"file": "one.key"}}}, nil))
	w.write("one.key", []byte(first+"\n"))
	w.write("two.key", []byte(second+"\n"))
	secret := secretVariable + "=" + simulator.DefaultSecret
	w.process = start(t, "", w.file, secret)
	w.ready()
	path := func(url string) string { return url[strings.Index(url, "/blob/"):] }
	old := path(w.export()[0])
	if a := w.get(old); a.status != http.StatusOK {
		t.Fatalf("the link: %v", a)
	}

	replica := w.in(t)
	replica.process = start(t, "", w.file, secret)
	replica.ready()
	if a := replica.get(old); a.status != http.StatusOK {
		t.Errorf("at a replica: %v", a)
	}
	if a := w.get(path(replica.export()[0])); a.status != http.StatusOK {
		t.Errorf("a replica's: %v", a)
	}
	w.stop()
	w.wait()
	w.process = start(t, "", w.file, secret)
	w.ready()
	if a := w.get(old); a.status != http.StatusOK {
		t.Errorf("after a restart: %v", a)
	}

	text, err := os.ReadFile(w.file)
	if err != nil {
		t.Fatal(err)
	}
	var c object
	if err := json.Unmarshal(text, &c); err != nil {
		t.Fatal(err)
	}
	reload := func(relay object) {
		t.Helper()
		c["relay"] = relay
		w.configure(c)
		if a := w.do(http.MethodPost, w.admin+"/-/reload", ""); a.status != http.StatusOK {
			t.Fatalf("the reload: %v", a)
		}
	}
	refused := func(what, link, want string, status int) {
		t.Helper()
		a := w.get(link)
		if code, message := a.refused(); code != want || a.status != status || message == "" {
			t.Errorf("%s: %v, want %d %s", what, a, status, want)
		}
	}
	reload(object{"downloads": true, "keys": []object{{"file": "two.key"}, {"file": "one.key"}}})
	fresh := path(w.export()[0])
	for what, link := range map[string]string{"an old link": old, "a fresh one": fresh} {
		if a := w.get(link); a.status != http.StatusOK {
			t.Errorf("%s, with both keys: %v", what, a)
		}
	}
	reload(object{"downloads": true, "keys": []object{{"file": "two.key"}}})
	refused("an old link, once its key is gone", old, "InvalidLink", http.StatusNotFound)
	if a := w.get(fresh); a.status != http.StatusOK {
		t.Errorf("a fresh link, once the old key is gone: %v", a)
	}
	reload(object{"downloads": false})
	refused("a link, with downloads off", fresh, "UnknownOperation", http.StatusNotFound)
	if direct := w.export()[0]; !strings.HasPrefix(direct, w.sim.BlobURL()+"/exports/") || !strings.Contains(direct, "&sig=") {
		t.Errorf("with downloads off the link is %s", direct)
	}

	reload(object{"downloads": true})
	own := path(w.export()[0])
	reload(object{"downloads": true}) // the key of the process outlasts that
	if a := w.get(own); a.status != http.StatusOK {
		t.Errorf("without a key, after a reload: %v", a)
	}
	w.stop()
	w.wait()
	w.process = start(t, "", w.file, secret)
	w.ready()
	refused("without a key, after a restart", own, "InvalidLink", http.StatusNotFound)

	c["clouds"].([]any)[0].(object)["blob_hosts"] = []string{"elsewhere.example"}
	reload(object{"downloads": true})
	if direct := w.export()[0]; !strings.HasPrefix(direct, w.sim.BlobURL()) {
		t.Errorf("a host that is not named: %s", direct)
	}
}

// The key is rotated in its file, and the configuration stays as it is: what is sealed
// with the key before ends with the reload that says so, asked for or not, and what is
// sealed from then on outlasts the process.
func TestAKeyThatIsChangedInItsFileIsPutIntoForce(t *testing.T) {
	t.Parallel()
	const first, second, third = "first-key-first-key-first-key-first-key", "second-key-second-key-second-key-second", "third-key-third-key-third-key-third-key"
	w := simulated(t, relaying(object{"keys": []object{{"file": "one.key"}}}, nil))
	w.write("one.key", []byte(first+"\n"))
	secret := secretVariable + "=" + simulator.DefaultSecret
	w.process = start(t, "", w.file, secret)
	w.ready()
	path := func(url string) string { return url[strings.Index(url, "/blob/"):] }
	ended := func(link string) error {
		if a := w.get(link); a.status != http.StatusNotFound {
			return fmt.Errorf("a link of the key that is gone: %v", a)
		} else if code, _ := a.refused(); code != "InvalidLink" {
			return fmt.Errorf("a link of the key that is gone: %v", a)
		}
		return nil
	}
	link := path(w.export()[0])
	w.write("one.key", []byte(second+"\n"))
	if a := w.do(http.MethodPost, w.admin+"/-/reload", ""); a.status != http.StatusOK {
		t.Fatalf("the reload: %v", a)
	}
	if err := ended(link); err != nil {
		t.Error(err)
	}
	link = path(w.export()[0])
	w.write("one.key", []byte(third+"\n"))
	w.eventually("the change of the file is seen", func() error { return ended(link) })
	link = path(w.export()[0])
	w.stop()
	w.wait()
	w.process = start(t, "", w.file, secret)
	w.ready()
	if a := w.get(link); a.status != http.StatusOK {
		t.Errorf("a link of the last key, after a restart: %v", a)
	}
}
