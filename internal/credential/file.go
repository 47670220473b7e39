package credential

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"defender-proxy/internal/token"
)

// The marks that editors put in front of a text, to tell its encoding (Unicode
// Standard, section 23.8).
var (
	markUTF8     = []byte("\xef\xbb\xbf")
	marksOfUTF16 = [][]byte{[]byte("\xff\xfe"), []byte("\xfe\xff")}
)

// readCredentialFile reads a regular file of at most limit bytes, and tells when
// it was written. A mark of UTF-8 in front is left out; UTF-16 is a fault. what names the file's part in sentences, such as "certificate
// file".
func readCredentialFile(what, path string, limit int64) ([]byte, time.Time, *token.Fault) {
	unreadable := func(err error) ([]byte, time.Time, *token.Fault) {
		remedy := "Make it readable for the user that the proxy runs as."
		if errors.Is(err, fs.ErrNotExist) {
			remedy = "Put it there, or correct the path in the configuration."
		}
		if pe, ok := errors.AsType[*fs.PathError](err); ok {
			err = pe.Err // without the path, which the sentence has already
		}
		return nil, time.Time{}, misconfigured(fmt.Sprintf("The %s %s cannot be read: %s.", what, path, oneLine(err.Error())), remedy)
	}
	info, err := os.Stat(path)
	if err != nil {
		return unreadable(err)
	}
	if !info.Mode().IsRegular() {
		// A pipe would block, and a device never end.
		return nil, time.Time{}, misconfigured(fmt.Sprintf("The %s %s is not a regular file.", what, path), "Name the file itself in the configuration.")
	}
	f, err := os.Open(path)
	if err != nil {
		return unreadable(err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	switch {
	case err != nil:
		return unreadable(err)
	case int64(len(data)) > limit:
		return nil, time.Time{}, misconfigured(fmt.Sprintf("The %s %s has more than %d KiB.", what, path, limit>>10), "Check that the configuration names the right file.")
	case len(data) == 0:
		return nil, time.Time{}, misconfigured(fmt.Sprintf("The %s %s is empty.", what, path), "If it is just being written, wait; else put the content into it.")
	}
	for _, mark := range marksOfUTF16 {
		if bytes.HasPrefix(data, mark) {
			return nil, time.Time{}, misconfigured(fmt.Sprintf("The %s %s is text in UTF-16.", what, path), "Save it in UTF-8 or ASCII, as Set-Content -Encoding ascii does in PowerShell.")
		}
	}
	return bytes.TrimPrefix(data, markUTF8), info.ModTime(), nil
}
