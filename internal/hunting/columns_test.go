package hunting

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

// Whether a name may be made a column's is known when the row is whole, which a long
// one is not for long.
func TestALongRowIsNotHeldForItsNames(t *testing.T) {
	long := strings.Repeat("x", 2*maxPending)
	doc := `{"schema":[{"name":"File","type":"String"}],"results":[{"file":"` + long + `"},{"x":"` + long + `","file":1}]}`
	r := NewReader(strings.NewReader(doc), MDE, 0)
	p := make([]byte, 1000)
	var got bytes.Buffer
	for {
		n, err := r.Read(p)
		got.Write(p[:n])
		if len(r.out)-r.sent > maxPending+2*bufferSize {
			t.Fatalf("%d bytes are held", len(r.out)-r.sent)
		}
		if err != nil {
			break
		}
	}
	if want := `{"Schema":[{"Name":"File","Type":"String"}],"Results":[{"File":"` + long + `"},{"x":"` + long + `","File":1}]}`; got.String() != want {
		t.Errorf("got %d bytes, want %d: %.200s", got.Len(), len(want), got.String())
	}
}

// A row that is held goes out with its end, and one that never ends does not.
func TestARowWhoseNamesChangeGoesOutWithItsEnd(t *testing.T) {
	const begin = `{"Schema":[{"Name":"File","Type":"String"}],"Results":[{"x":1,`
	src := strings.NewReader(`{"schema":[{"name":"File","type":"String"}],"results":[{"x":1,"file":1,"y":2`)
	broken := io.MultiReader(iotest.OneByteReader(src), iotest.ErrReader(io.ErrUnexpectedEOF))
	got, err := io.ReadAll(NewReader(broken, MDE, time.Second))
	if err == nil || string(got) != begin {
		t.Errorf("got %s, %v", got, err)
	}
}

func BenchmarkReaderOfOtherNames(b *testing.B) {
	doc := bytes.ReplaceAll(rows(20_000), []byte(`{"Timestamp":`), []byte(`{"timestamp":`))
	b.SetBytes(int64(len(doc)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := io.Copy(struct{ io.Writer }{io.Discard}, NewReader(bytes.NewReader(doc), XDR, 0)); err != nil {
			b.Fatal(err)
		}
	}
}
