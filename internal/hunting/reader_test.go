package hunting

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

func convert(t testing.TB, src io.Reader, shape Shape) (string, error) {
	t.Helper()
	got, err := io.ReadAll(NewReader(src, shape, 1500*time.Millisecond))
	return string(got), err
}

const schema = `"schema":[{"name":"A","type":"String"}]`

func TestAnswersOfGraphGetTheOldShape(t *testing.T) {
	const columns = `"Schema":[{"Name":"A","Type":"String"}]`
	for _, c := range []struct {
		name, graph, want string
		shape             Shape
	}{
		{name: "as Graph's page prints it", graph: `{"@odata.context":"https://graph.microsoft.com/v1.0/$metadata#microsoft.graph.security.huntingQueryResults","schema":[{"name":"A","type":"String"}],"results":[{"A":"x"},{"A":"y"}]}`,
			want: `{` + columns + `,"Results":[{"A":"x"},{"A":"y"}]}`},
		{name: "with the other spelling of the schema", graph: `{"schema":[{"Name":"A","Type":"String"}],"results":[]}`, want: `{` + columns + `,"Results":[]}`},
		{name: "with the old names already", graph: `{"Schema":[{"Name":"A","Type":"String"}],"Results":[{"A":1}]}`, want: `{` + columns + `,"Results":[{"A":1}]}`},
		{name: "with statistics", graph: `{` + schema + `,"results":[{"A":"x"},{"A":"é"}]}`, shape: XDR,
			want: `{` + columns + `,"Results":[{"A":"x"},{"A":"é"}],"Stats":{"ExecutionTime":1.5,"dataset_statistics":[{"table_row_count":2,"table_size":19}]}}`},
		{name: "with statistics of no rows", graph: `{` + schema + `,"results":[]}`, shape: XDR,
			want: `{` + columns + `,"Results":[],"Stats":{"ExecutionTime":1.5,"dataset_statistics":[{"table_row_count":0,"table_size":0}]}}`},
		{name: "with results before the schema", graph: `{"results":[{"A":1}],` + schema + `}`, want: `{"Results":[{"A":1}],` + columns + `}`},
		{name: "with null for results", graph: `{` + schema + `,"results":null}`, want: `{` + columns + `,"Results":[]}`},
		{name: "with null for the schema", graph: `{"schema":null,"results":[]}`, want: `{"Schema":[],"Results":[]}`},
		{name: "with a column of no type", graph: `{"schema":[{"name":"A"},{"name":"B","type":null}],"results":[]}`, want: `{"Schema":[{"Name":"A","Type":null},{"Name":"B","Type":null}],"Results":[]}`},
		{name: "with annotations before members", graph: `{` + schema + `,"results":[{"A@odata.type":"#Int64","A":3,"B@odata.type":"#Int64","B":4}]}`, want: `{` + columns + `,"Results":[{"A":3,"B":4}]}`},
		{name: "with annotations behind members", graph: `{` + schema + `,"results":[{"A":3,"A@odata.type":"#Int64"},{"@odata.type":"#x","A":3}]}`, want: `{` + columns + `,"Results":[{"A":3},{"A":3}]}`},
		{name: "with nothing but annotations", graph: `{` + schema + `,"results":[{"@odata.type":"#x" , "@odata.id":{"a":[1]}}]}`, want: `{` + columns + `,"Results":[{}]}`},
		{name: "with an annotation that is escaped", graph: `{` + schema + `,"results":[{"A\u0040odata.type":"#x","A":"\/\u0026"}]}`, want: `{` + columns + `,"Results":[{"A":"\/\u0026"}]}`},
		{name: "with names that only look like one", graph: `{` + schema + `,"results":[{"@odata":1,"\\u0040odata.type":2,"a@odatax.b":"@odata.type"}]}`, want: `{` + columns + `,"Results":[{"@odata":1,"\\u0040odata.type":2,"a@odatax.b":"@odata.type"}]}`},
		{name: "with annotations deeper down, which are data", graph: `{` + schema + `,"results":[{"A":{"@odata.type":"x","b":[{"@odata.id":1}]}}]}`, want: `{` + columns + `,"Results":[{"A":{"@odata.type":"x","b":[{"@odata.id":1}]}}]}`},
		{name: "with numbers byte for byte", graph: `{` + schema + `,"results":[{"A":-0.0,"B":1E+400,"C":12345678901234567890123,"D":1.10}]}`, want: `{` + columns + `,"Results":[{"A":-0.0,"B":1E+400,"C":12345678901234567890123,"D":1.10}]}`},
		{name: "with white space in rows", graph: " {\n " + schema + " ,\r\n \"results\" : [\t{ \"A\" : 1 ,\n\t\"B\" : [ 1 , 2 ] } , { } ]\n} \n", want: `{` + columns + ",\"Results\":[{ \"A\" : 1 ,\n\t\"B\" : [ 1 , 2 ] },{ }]}"},
		{name: "with white space around an annotation", graph: `{` + schema + `,"results":[{ "A@odata.type" : "#x" , "A" : 1 , "B@odata.type" : "#x" }]}`, want: `{` + columns + `,"Results":[{ "A" : 1 }]}`},
		{name: "with a member twice in a row", graph: `{` + schema + `,"results":[{"A":1,"A":2}]}`, want: `{` + columns + `,"Results":[{"A":1,"A":2}]}`},
		{name: "with members that nobody knows", graph: `{"a":{"results":[1]},` + schema + `,"@odata.count":1,"results":[{}],"b":[true,false,null]}`, want: `{` + columns + `,"Results":[{}]}`},
		{name: "with null for an error and a next page", graph: `{"error":null,` + schema + `,"results":[],"@odata.nextLink":null}`, want: `{` + columns + `,"Results":[]}`},
		{name: "with rows whose names begin with a small letter", graph: `{"schema":[{"name":"FileName","type":"String"},{"name":"SHA1","type":"String"}],"results":[{"fileName":"x","shA1":1,"other":2},{ "fileName@odata.type":"#x" , "fileName" : "FileName" }]}`,
			want: `{"Schema":[{"Name":"FileName","Type":"String"},{"Name":"SHA1","Type":"String"}],"Results":[{"FileName":"x","SHA1":1,"other":2},{ "FileName" : "FileName" }]}`},
		{name: "with columns that differ in their case alone", graph: `{"schema":[{"name":"ab","type":"x"},{"name":"AB","type":"x"}],"results":[{"ab":1,"AB":2,"aB":3}]}`,
			want: `{"Schema":[{"Name":"ab","Type":"x"},{"Name":"AB","Type":"x"}],"Results":[{"ab":1,"AB":2,"aB":3}]}`},
		{name: "with a column beside a name that differs in its case alone", graph: `{"schema":[{"name":"Timestamp","type":"x"},{"name":"B","type":"x"}],"results":[{"timestamp":"row","b":1,"Timestamp":"column"},{"Timestamp":1,"timestamp":2},{"TIMESTAMP":1,"timestamp":2},{ "x@odata.type":1, "timestamp":3,"b":4}]}`,
			want: `{"Schema":[{"Name":"Timestamp","Type":"x"},{"Name":"B","Type":"x"}],"Results":[{"timestamp":"row","B":1,"Timestamp":"column"},{"Timestamp":1,"timestamp":2},{"TIMESTAMP":1,"timestamp":2},{ "Timestamp":3,"B":4}]}`},
		{name: "with letters that only Unicode folds", graph: "{\"schema\":[{\"name\":\"K\",\"type\":\"x\"}],\"results\":[{\"\u212a\":1},{\"k\":2}]}",
			want: "{\"Schema\":[{\"Name\":\"K\",\"Type\":\"x\"}],\"Results\":[{\"\u212a\":1},{\"K\":2}]}"},
		{name: "with rows of small letters before the schema", graph: `{"results":[{"a":1}],` + schema + `}`, want: `{"Results":[{"a":1}],` + columns + `}`},
		{name: "with its names escaped", graph: `{"\u0073chema":[],"result\u0073":[]}`, want: `{"Schema":[],"Results":[]}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			// Whole, in pieces of one byte, and with the end at once.
			for _, src := range []io.Reader{strings.NewReader(c.graph), iotest.OneByteReader(strings.NewReader(c.graph)), iotest.DataErrReader(strings.NewReader(c.graph))} {
				got, err := convert(t, src, c.shape)
				if err != nil || c.want == "" && got != c.graph || c.want != "" && got != c.want {
					t.Errorf("got  %s, %v\nwant %s", got, err, c.want)
				}
				if !json.Valid([]byte(got)) {
					t.Errorf("it is no JSON: %s", got)
				}
			}
		})
	}
}

func TestWhatIsNoAnswerNeverLooksLikeOne(t *testing.T) {
	for name, graph := range map[string]string{
		"nothing":                        ``,
		"white space":                    "\n",
		"HTML":                           `<html><body>502</body></html>`,
		"null":                           `null`,
		"a list":                         `[]`,
		"no members":                     `{}`,
		"an error with the status 200":   `{"error":{"code":"x","message":"y"}}`,
		"no schema":                      `{"results":[]}`,
		"no results":                     `{` + schema + `}`,
		"two results":                    `{` + schema + `,"results":[],"results":[]}`,
		"results in two spellings":       `{` + schema + `,"results":[],"Results":[]}`,
		"an error behind the rows":       `{` + schema + `,"results":[{}],"error":{"code":"QueryLimits","message":"partial"}}`,
		"an error before them":           `{"Error":"x",` + schema + `,"results":[]}`,
		"a link to a next page":          `{` + schema + `,"results":[{}],"@odata.nextLink":"https://graph.microsoft.com/v1.0/security/runHuntingQuery?$skiptoken=1"}`,
		"a link to a next page, escaped": `{` + schema + `,"results":[{}],"@odata.next\u004cink":"x"}`,
		"a link to later changes":        `{` + schema + `,"results":[{}],"@odata.deltaLink":"x"}`,
		"two schemas":                    `{` + schema + `,` + schema + `,"results":[]}`,
		"results that are an object":     `{` + schema + `,"results":{}}`,
		"results that are a string":      `{` + schema + `,"results":"[]"}`,
		"a row that is null":             `{` + schema + `,"results":[null]}`,
		"a row that is a list":           `{` + schema + `,"results":[[]]}`,
		"a comma behind the last row":    `{` + schema + `,"results":[{},]}`,
		"a comma behind the last member": `{` + schema + `,"results":[{"a":1,}]}`,
		"a comma behind the last":        `{` + schema + `,"results":[],}`,
		"a comma before the first":       `{,` + schema + `,"results":[]}`,
		"rows without a comma":           `{` + schema + `,"results":[{}{}]}`,
		"a member without a value":       `{` + schema + `,"results":[{"a"}]}`,
		"a member without a colon":       `{` + schema + `,"results":[{"a" 1}]}`,
		"a name that is none":            `{` + schema + `,"results":[{a:1}]}`,
		"a word that is none":            `{` + schema + `,"results":[{"a":nul}]}`,
		"a number that is none":          `{` + schema + `,"results":[{"a":01}]}`,
		"a number without its end":       `{` + schema + `,"results":[{"a":1.}]}`,
		"an escape that is none":         `{` + schema + `,"results":[{"a":"\x"}]}`,
		"an escape without digits":       `{` + schema + `,"results":[{"a":"\u12g4"}]}`,
		"a control character":            "{" + schema + ",\"results\":[{\"a\":\"\n\"}]}",
		"the wrong bracket":              `{` + schema + `,"results":[{"a":[1}]}`,
		"something behind the end":       `{` + schema + `,"results":[]}{}`,
		"a schema of strings":            `{"schema":["A"],"results":[]}`,
		"a schema that is an object":     `{"schema":{},"results":[]}`,
		"a column without a name":        `{"schema":[{"type":"String"}],"results":[]}`,
		"a column whose name is none":    `{"schema":[{"name":1,"type":"String"}],"results":[]}`,
		"a column whose type is none":    `{"schema":[{"name":"A","type":{}}],"results":[]}`,
		"a column that is null":          `{"schema":[null],"results":[]}`,
		"a schema without end":           `{"schema":[` + strings.Repeat(" ", maxSchema) + `],"results":[]}`,
		"a name without end":             `{` + schema + `,"results":[{"` + strings.Repeat("a", maxName) + `":1}]}`,
		"white space without end":        `{` + schema + `,"results":[{"a":1,` + strings.Repeat(" ", maxName+1) + `"b":1}]}`,
		"values too deep":                `{` + schema + `,"results":[{"a":` + strings.Repeat("[", maxDepth+1) + strings.Repeat("]", maxDepth+1) + `}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			got, err := convert(t, strings.NewReader(graph), XDR)
			if !errors.Is(err, ErrShape) && !errors.Is(err, io.ErrUnexpectedEOF) || json.Valid([]byte(got)) {
				t.Errorf("got %.200s, %v", got, err)
			}
		})
	}
}

// sample is an answer with all that rows may hold.
const sample = `{"@odata.context":"c",` + schema + `,"results":[{"A@odata.type":"#Int64","A":-1.5e+3,"B":"é\"\\\/\u00e9","@odata.id":[{"x":null}]},{ },{"C":{"d":[true,false,null,[]]}}]}`

func TestAnAnswerThatBreaksOffAnywhereNeverLooksComplete(t *testing.T) {
	for _, shape := range []Shape{MDE, XDR} {
		for i := range len(sample) {
			got, err := convert(t, strings.NewReader(sample[:i]), shape)
			if err == nil || json.Valid([]byte(got)) {
				t.Errorf("of %q comes %q, %v", sample[:i], got, err)
			}
			broken := errors.New("broken")
			if got, err := convert(t, io.MultiReader(strings.NewReader(sample[:i]), iotest.ErrReader(broken)), shape); err != broken || json.Valid([]byte(got)) {
				t.Errorf("of %q, broken, comes %q, %v", sample[:i], got, err)
			}
		}
		if got, err := convert(t, io.MultiReader(strings.NewReader(sample), iotest.ErrReader(io.ErrUnexpectedEOF)), shape); err == nil || json.Valid([]byte(got)) {
			t.Errorf("broken behind the last byte: %q, %v", got, err)
		}
	}
}

func TestAnySplitOfTheStreamGivesTheSame(t *testing.T) {
	want, err := convert(t, strings.NewReader(sample), XDR)
	if err != nil {
		t.Fatal(err)
	}
	for i := range len(sample) {
		for j := i; j < len(sample); j++ {
			src := io.MultiReader(strings.NewReader(sample[:i]), strings.NewReader(sample[i:j]), strings.NewReader(sample[j:]))
			if got, err := convert(t, src, XDR); got != want || err != nil {
				t.Fatalf("split at %d and %d: %q, %v", i, j, got, err)
			}
		}
	}
}

// Rows go out before the source has more, so that a caller sees them as they come.
func TestRowsGoOutAsTheyCome(t *testing.T) {
	pr, pw := io.Pipe()
	defer pr.Close()
	r := NewReader(pr, MDE, 0)
	for _, piece := range []struct{ in, out string }{
		{`{` + schema, `{"Schema":[{"Name":"A","Type":"String"}]`}, {`,"results":[{"A":1}`, `,"Results":[{"A":1}`}, {`,{"A":`, `,{"A":`}, {`2}`, `2}`}, {`]}`, `]`},
	} {
		go func() { _, _ = io.WriteString(pw, piece.in) }()
		got := make([]byte, len(piece.out))
		if _, err := io.ReadFull(r, got); err != nil || string(got) != piece.out {
			t.Fatalf("of %s comes %s, %v; want %s", piece.in, got, err, piece.out)
		}
	}
	pw.Close()
	if rest, err := io.ReadAll(r); err != nil || string(rest) != "}" {
		t.Errorf("the end: %q, %v", rest, err)
	}
}

func FuzzReader(f *testing.F) {
	for _, seed := range []string{sample, `{` + schema + `,"results":[{"A":"\u0040odata.x","\u0040odata.x":1}]}`, `{"results":null,"SCHEMA":[]}`, `{"error":null,"schema":[{"name":"Ab"}],"results":[{"aB":1,"Ab":2},{"ab":3},{"AB":1,"x":2,"ab":3}]}`, `{"error":1,"schema":[],"results":[]}`, `{"schema":[],"results":[{"a":1,"b@odata.type":2,"c":3}]}`} {
		f.Add([]byte(seed), uint8(7))
	}
	f.Fuzz(func(t *testing.T, doc []byte, size uint8) {
		want, ok := slow(doc)
		got, err := convert(t, &pieces{bytes.NewReader(doc), int(size) + 1}, MDE)
		if ok != (err == nil) {
			t.Fatalf("%q gives %q, %v; the slow way %q, %v", doc, got, err, want, ok)
		}
		if ok && plainly(got) != plainly(want) {
			t.Errorf("%q gives\n%s\nnot\n%s", doc, got, want)
		}
		if err != nil && json.Valid([]byte(got)) {
			t.Errorf("%q fails and looks complete: %q, %v", doc, got, err)
		}
	})
}

type pieces struct {
	src  io.Reader
	size int
}

func (p *pieces) Read(b []byte) (int, error) { return p.src.Read(b[:min(len(b), p.size)]) }

// rows is an answer of n rows of some 400 bytes, with two annotations each.
func rows(n int) []byte {
	var b bytes.Buffer
	b.WriteString(`{"@odata.context":"c","schema":[{"name":"Timestamp","type":"DateTime"},{"name":"ProcessId","type":"Int64"}],"results":[`)
	for i := range n {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"Timestamp":"2026-11-21T12:00:00.%07dZ","DeviceId":"1e5bc9d7e413ddd7902c2932e418702b84d0cc07","DeviceName":"ws-0%d.contoso.example","ActionType":"ProcessCreated","FileName":"powershell.exe",`+
			`"ProcessId@odata.type":"#Int64","ProcessId":%d,"ProcessCommandLine":"\"powershell.exe\" -NoProfile -ExecutionPolicy Bypass -File C:\\Windows\\Temp\\x.ps1","AccountName":"analyst","ReportId@odata.type":"#Int64","ReportId":%d}`, i, i%10, i%60000, i)
	}
	b.WriteString("]}")
	return b.Bytes()
}

func TestAHundredThousandRowsTakeNoMemory(t *testing.T) {
	doc := rows(100_000)
	r := NewReader(bytes.NewReader(doc), XDR, time.Second)
	n, err := io.Copy(struct{ io.Writer }{io.Discard}, r)
	if err != nil || r.rows != 100_000 || n < int64(len(doc))*3/4 {
		t.Fatalf("%d bytes, %d rows, %v", n, r.rows, err)
	}
	allocated := testing.AllocsPerRun(3, func() {
		_, _ = io.Copy(struct{ io.Writer }{io.Discard}, NewReader(bytes.NewReader(doc), XDR, time.Second))
	})
	if allocated > 200 {
		t.Errorf("%v allocations for 100,000 rows", allocated)
	}
}

func BenchmarkReader(b *testing.B) {
	doc := rows(20_000)
	b.SetBytes(int64(len(doc)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := io.Copy(struct{ io.Writer }{io.Discard}, NewReader(bytes.NewReader(doc), XDR, 0)); err != nil {
			b.Fatal(err)
		}
	}
}

// What a whole pass through encoding/json costs, for comparison.
func BenchmarkDecoderOfEachRow(b *testing.B) {
	doc := rows(20_000)
	b.SetBytes(int64(len(doc)))
	for b.Loop() {
		if _, ok := slow(doc); !ok {
			b.Fatal("no answer")
		}
	}
}

func TestReadingOnAfterTheEndGivesTheEndAgain(t *testing.T) {
	r := NewReader(strings.NewReader(sample), MDE, 0)
	_, _ = io.Copy(io.Discard, r)
	for range 2 {
		if n, err := r.Read(make([]byte, 8)); n != 0 || err != io.EOF {
			t.Errorf("got %d, %v", n, err)
		}
	}
	stuck := NewReader(stuckReader{}, MDE, 0)
	if _, err := io.ReadAll(stuck); err != io.ErrNoProgress {
		t.Errorf("a source that gives nothing: %v", err)
	}
	liar := NewReader(lyingReader{}, MDE, 0)
	if _, err := io.ReadAll(liar); err == nil {
		t.Error("a source that says more than it read is believed")
	}
}

type stuckReader struct{}

func (stuckReader) Read([]byte) (int, error) { return 0, nil }

type lyingReader struct{}

func (lyingReader) Read(p []byte) (int, error) { return len(p) + 1, nil }

// A broken gzip stream fails although its JSON has come to its end.
func TestAnAnswerWhoseChecksumIsWrongFails(t *testing.T) {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, _ = io.WriteString(z, sample)
	_ = z.Close()
	packed := b.Bytes()
	packed[len(packed)-6] ^= 1
	plain, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := convert(t, plain, MDE); err == nil || json.Valid([]byte(got)) {
		t.Errorf("got %s, %v", got, err)
	}
}
