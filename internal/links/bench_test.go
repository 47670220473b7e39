package links

import (
	"bytes"
	"fmt"
	"io"
	"testing"
)

// alertPage is a page of alerts of at least size bytes in Microsoft's form.
func alertPage(size int) []byte {
	b := []byte(`{"@odata.context":"https://api.securitycenter.microsoft.com/api/$metadata#Alerts","value":[`)
	for i := 0; len(b) < size-200 || i == 0; i++ {
		if i > 0 {
			b = append(b, ',')
		}
		b = fmt.Appendf(b, `{"id":"da637%012d_-1234567890","incidentId":%d,"severity":"Medium","status":"New","classification":null,`+
			`"detectionSource":"WindowsDefenderAtp","category":"SuspiciousActivity","title":"Suspicious process injection observed",`+
			`"machineId":"1e5bc9d7e413ddd7902c2932e418702b84d0cc07","relatedUser":{"userName":"user%d@contoso.com","domainName":"CONTOSO"},`+
			`"evidence@odata.type":"#Collection(microsoft.windowsDefenderATP.api.AlertEvidence)","evidence":[],"lastUpdateTime":"2026-01-24T16:19:21.8409809Z"}`, i, i, i)
	}
	return append(b, `],"@odata.nextLink":"https://api.securitycenter.microsoft.com/api/alerts?$filter=severity+eq+'Medium'&$skiptoken=a%2Bb"}`...)
}

// BenchmarkReader reads pages as forward does: into a buffer of 32 KiB.
func BenchmarkReader(b *testing.B) { benchmarkReader(b, nil) }

// BenchmarkReaderThatTells does so with an OnNext.
func BenchmarkReaderThatTells(b *testing.B) { benchmarkReader(b, func(string) {}) }

func benchmarkReader(b *testing.B, onNext func(string)) {
	for _, size := range []struct {
		name  string
		bytes int
	}{{"1KiB", 1 << 10}, {"100KiB", 100 << 10}, {"10MiB", 10 << 20}} {
		b.Run(size.name, func(b *testing.B) {
			page := alertPage(size.bytes)
			target := mustTarget(b, home)
			src := bytes.NewReader(nil)
			p := make([]byte, 32<<10)
			b.SetBytes(int64(len(page)))
			b.ReportAllocs()
			for b.Loop() {
				src.Reset(page)
				r := NewReader(src, target)
				r.OnNext = onNext
				for {
					if _, err := r.Read(p); err == io.EOF {
						break
					}
				}
			}
		})
	}
}

// TestReaderAllocatesNothingOnTheWay guards the constant memory: past the
// Reader itself no allocation grows with the document.
func TestReaderAllocatesNothingOnTheWay(t *testing.T) {
	page := alertPage(1 << 20)
	target := mustTarget(t, home)
	src := bytes.NewReader(page)
	p := make([]byte, 32<<10)
	r := NewReader(src, target)
	if _, err := r.Read(p); err != nil {
		t.Fatal(err)
	}
	allocs := testing.AllocsPerRun(20, func() {
		if _, err := r.Read(p); err != nil {
			t.Fatal(err)
		}
	})
	if allocs != 0 {
		t.Errorf("a Read allocates %v times, want none", allocs)
	}
}
