package simulator

import (
	"archive/zip"
	"bytes"
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
)

// sasTime is how shared access signatures print times.
const sasTime = "2006-01-02T15:04:05Z"

// blobLink is a signed link to a blob that lives for a while. Names are
// container/rest; what a name stands for is made when it is fetched.
func (s *Simulator) blobLink(name string, now time.Time, life time.Duration) string {
	start, expiry := now.UTC().Add(-clockAllowance).Format(sasTime), now.UTC().Add(life).Format(sasTime)
	q := "sv=2023-11-03&st=" + url.QueryEscape(start) + "&se=" + url.QueryEscape(expiry) + "&sr=b&sp=r&spr=https&sig=" +
		url.QueryEscape(s.sasSignature("/"+name, start, expiry, "r"))
	return s.BlobURL() + (&url.URL{Path: "/" + name}).EscapedPath() + "?" + q
}

func (s *Simulator) sasSignature(path, start, expiry, permission string) string {
	h := hmac.New(sha256.New, binary.BigEndian.AppendUint64([]byte("blob account key"), s.cfg.Seed))
	fmt.Fprintf(h, "%s\n%s\n%s\n%s", permission, start, expiry, path)
	return base64.StdEncoding.EncodeToString(h.Sum(nil))
}

// blobHandler answers for *.blob.core.windows.net.
func (s *Simulator) blobHandler() http.Handler {
	return s.recorded("blob", "", func(w http.ResponseWriter, r *http.Request, _ *Request) {
		h := w.Header()
		h.Set("Server", "Windows-Azure-Blob/1.0 Microsoft-HTTPAPI/2.0")
		h.Set("x-ms-version", "2023-11-03")
		h.Set("x-ms-request-id", uuid.NewString())
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			s.blobError(w, http.StatusMethodNotAllowed, "UnsupportedHttpVerb", "The resource doesn't support specified Http Verb.", "")
			return
		}
		// Azure refuses a signed link that comes with a token: a client that
		// leaks its bearer to storage shall notice here too.
		if r.Header.Get("Authorization") != "" {
			s.blobError(w, http.StatusBadRequest, "InvalidAuthenticationInfo", "Authentication information is not given in the correct format. Check the value of Authorization header.", "")
			return
		}
		if detail := s.checkSAS(r); detail != "" {
			s.blobError(w, http.StatusForbidden, "AuthenticationFailed",
				"Server failed to authenticate the request. Make sure the value of Authorization header is formed correctly including the signature.", detail)
			return
		}
		var body bytes.Buffer
		kind, err := s.writeBlob(strings.TrimPrefix(r.URL.Path, "/"), &body)
		if err != nil {
			s.blobError(w, http.StatusNotFound, "BlobNotFound", "The specified blob does not exist.", "")
			return
		}
		sum := sha256.Sum256(body.Bytes())
		h.Set("Content-Type", kind)
		h.Set("ETag", `"0x`+strings.ToUpper(hex.EncodeToString(sum[:8]))+`"`)
		h.Set("x-ms-blob-type", "BlockBlob")
		h.Set("x-ms-creation-time", s.started.UTC().Format(http.TimeFormat))
		name := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
		h.Set("Content-Disposition", `attachment; filename="`+name+`"`)
		md5sum := md5.Sum(body.Bytes())
		switch first, ranged := blobRange(r.Header); {
		case ranged && first >= int64(body.Len()):
			h.Del("Content-Disposition")
			h.Set("Content-Range", fmt.Sprintf("bytes */%d", body.Len()))
			s.blobError(w, http.StatusRequestedRangeNotSatisfiable, "InvalidRange", "The range specified is invalid for the current size of the resource.", "")
			return
		case ranged:
			h.Set("x-ms-blob-content-md5", base64.StdEncoding.EncodeToString(md5sum[:]))
		default:
			h.Set("Content-MD5", base64.StdEncoding.EncodeToString(md5sum[:]))
		}
		http.ServeContent(w, r, name, s.started, bytes.NewReader(body.Bytes()))
	})
}

// documentedRange is what Azure takes for a range: from a byte on, or from one to
// another (learn.microsoft.com/rest/api/storageservices, "Specifying the range header
// for Blob service operations", read 2026-11).
var documentedRange = regexp.MustCompile(`^bytes=([0-9]{1,18})-[0-9]{0,18}$`)

// blobRange gives the first byte of the range that is asked for. x-ms-range is taken
// before Range, and what is no documented range is not looked at: the page does not say
// what becomes of it. h is left with the one that counts.
func blobRange(h http.Header) (first int64, ranged bool) {
	if v := h.Get("x-ms-range"); v != "" {
		h.Set("Range", v)
	}
	m := documentedRange.FindStringSubmatch(h.Get("Range"))
	if m == nil {
		h.Del("Range")
		return 0, false
	}
	first, err := strconv.ParseInt(m[1], 10, 64)
	return first, err == nil
}

// checkSAS tells what is wrong with the signature of a link; empty for nothing.
func (s *Simulator) checkSAS(r *http.Request) string {
	q := r.URL.Query()
	want := s.sasSignature(r.URL.Path, q.Get("st"), q.Get("se"), q.Get("sp"))
	if !hmac.Equal([]byte(want), []byte(q.Get("sig"))) {
		return "Signature did not match."
	}
	now := s.now().UTC()
	expiry, err := time.Parse(sasTime, q.Get("se"))
	if err != nil || !now.Before(expiry) {
		return fmt.Sprintf("Signature not valid in the specified time frame: Start [%s] - Expiry [%s] - Current [%s]",
			q.Get("st"), q.Get("se"), now.Format(http.TimeFormat))
	}
	return ""
}

// azureError is the storage service's form of an error.
type azureError struct {
	XMLName xml.Name `xml:"Error"`
	Code    string   `xml:"Code"`
	Message string   `xml:"Message"`
	Detail  string   `xml:"AuthenticationErrorDetail,omitempty"`
}

func (s *Simulator) blobError(w http.ResponseWriter, status int, code, message, detail string) {
	message += "\nRequestId:" + w.Header().Get("x-ms-request-id") + "\nTime:" + s.now().UTC().Format("2006-01-02T15:04:05.0000000Z")
	body, err := xml.Marshal(azureError{Code: code, Message: message, Detail: detail})
	if err != nil {
		http.Error(w, code, status)
		return
	}
	w.Header().Set("Content-Type", "application/xml")
	w.Header().Set("x-ms-error-code", code)
	w.WriteHeader(status)
	io.WriteString(w, xml.Header)
	w.Write(body)
}

// writeBlob makes the content that a name stands for and tells its type.
func (s *Simulator) writeBlob(name string, w io.Writer) (kind string, err error) {
	parts := strings.Split(name, "/")
	if len(parts) < 3 {
		return "", errNoFile
	}
	t := s.directory.tenant(parts[1])
	if t == nil {
		return "", errNoFile
	}
	switch {
	case parts[0] == "exports" && len(parts) == 4:
		return "application/x-gzip", s.writeExport(t.fleet(), parts[2], parts[3], w)
	case parts[0] == "packages" && len(parts) == 3:
		return "application/zip", writePackage(t.fleet(), strings.TrimSuffix(parts[2], ".zip"), w)
	case parts[0] == "liveresponse" && len(parts) == 5:
		return "application/json", writeTranscript(t.fleet(), parts[2], parts[3], w)
	}
	return "", errNoFile
}

// writePackage makes an investigation package.
func writePackage(f *fleet, id string, w io.Writer) error {
	for _, a := range snapshot(f, &f.actions) {
		if a.ID != id {
			continue
		}
		z := zip.NewWriter(w)
		for _, file := range []struct{ name, text string }{
			{"Autoruns/autoruns.csv", "Entry,Path\r\n"},
			{"Installed programs/programs.csv", "Name,Version\r\n"},
			{"Network connections/netstat.txt", "Machine " + a.ComputerDNSName + "\r\n"},
			{"Forensics Collection Summary.txt", "Collected for action " + a.ID + "\r\n"},
		} {
			part, err := z.Create(file.name)
			if err != nil {
				return err
			}
			if _, err := io.WriteString(part, file.text); err != nil {
				return err
			}
		}
		return z.Close()
	}
	return errNoFile
}

// writeTranscript makes the result of one command of a live response session.
func writeTranscript(f *fleet, id, index string, w io.Writer) error {
	for _, a := range snapshot(f, &f.actions) {
		if a.ID != id {
			continue
		}
		for _, cmd := range a.Commands {
			if fmt.Sprint(cmd.Index) != index {
				continue
			}
			name := cmd.Command.Type
			for _, p := range cmd.Command.Params {
				if p.Key == "ScriptName" {
					name = p.Value
				}
			}
			body, err := marshalPlain(members{{"script_name", name}, {"exit_code", 0}, {"script_output", "Ran on " + a.ComputerDNSName}, {"script_errors", ""}})
			if err != nil {
				return err
			}
			_, err = w.Write(body)
			return err
		}
	}
	return errNoFile
}
