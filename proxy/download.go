package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"defender-proxy/internal/canon"
	"defender-proxy/internal/links"
	"defender-proxy/internal/redact"
	"defender-proxy/policy"
)

// Downloads is what the relay of download links needs. Where there is one, the links
// to storage in the answers of operations with sas_links become /blob/{sealed}, and
// the proxy fetches what they stand for.
type Downloads struct {
	// Sealer is shared by all replicas that shall open each other's links.
	Sealer *links.Sealer
}

// NewDownloads makes a relay whose links are sealed with the first of the keys and
// opened with any of them. Each has 32 bytes or more.
func NewDownloads(keys [][]byte) *Downloads { return &Downloads{Sealer: links.NewSealer(keys)} }

const (
	blobPrefix = "/blob/"
	// sealedPath stands in records and messages for the path of a sealed link, which
	// is as good as the link.
	sealedPath = blobPrefix + "{sealed}"
)

// isDownload reports whether a path is that of a sealed link, in any letter case, so
// that none is taken for an unknown path, and recorded.
func isDownload(path canon.Path) bool {
	s := path.String()
	return len(s) > len(blobPrefix) && asciiLower(s[:len(blobPrefix)]) == blobPrefix
}

// concealed is a path for records, without what may be a sealed link. The path may be
// one that was refused, so a sealed link is looked for wherever it may stand.
func concealed(path string) string {
	if policy.Ours(path) {
		return path
	}
	plain := path
	if parsed, err := canon.Parse(path); err == nil {
		plain = parsed.String()
	}
	if i := strings.Index(asciiLower(plain), blobPrefix); i >= 0 && len(plain) > i+len(blobPrefix) {
		return plain[:i] + sealedPath
	}
	return path
}

// relayed seals the download links of a document.
func (p *Proxy) relayed(src io.Reader, x *Exchange) io.Reader {
	if p.Downloads == nil || !x.Operation.SASLinks || len(x.Tenant.blobs) == 0 {
		return src
	}
	return links.NewDownloads(src, func(link string) (string, bool) { return p.sealed(link, x) })
}

// sealed makes the link that a caller gets in place of one to storage. It reports
// false for a link that is left alone.
func (p *Proxy) sealed(link string, x *Exchange) (string, bool) {
	u, ok := x.Tenant.blobs.link(link)
	if !ok || x.Target.String() == "" {
		return "", false
	}
	sealed, err := p.Downloads.Sealer.Seal(
		links.Download{URL: link, Operation: x.Operation.ID, Expires: links.Expiry(u.RawQuery, x.Start)},
		x.Tenant.Name, x.Client.Name)
	if err != nil || len("/t/")+len(x.Tenant.Name)+len(blobPrefix)+len(sealed) > canon.MaxLength {
		return "", false // it could not be asked for
	}
	return x.Target.String() + blobPrefix + sealed, true
}

// download answers a request for a sealed link: it fetches what the link stands for,
// from that one place, without a token, and passes it on as it comes.
func (p *Proxy) download(w *answer, r *http.Request, x *Exchange) (err error) {
	if p.Downloads == nil {
		return refusal(UnknownOperation, "%s leads to a file in storage, and this proxy relays none. Ask for the link again: the answer then has Microsoft's own. An operator switches the relay on with relay.downloads in the proxy's configuration.", sealedPath)
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return &Refusal{Code: MethodNotAllowed, Message: "A download link is there to be read: GET it, or ask for its HEAD.", Allow: "GET, HEAD"}
	}
	unwanted(w, r)
	if x.Tenant, err = p.tenant(x); err != nil {
		return err
	}
	u, err := p.opened(x)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	resp, err := p.fetch(ctx, cancel, x, blobRequest(r, u, p.Version))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return p.passFile(w, r, resp)
}

// opened gives the URL that a sealed link stands for, when this caller may have it
// now.
func (p *Proxy) opened(x *Exchange) (*url.URL, error) {
	const again = "Ask for the link again where you had it from: each answer holds a new one."
	d, err := p.Downloads.Sealer.Open(x.Path.String()[len(blobPrefix):], x.Start, x.Tenant.Name, x.Client.Name)
	if err != nil && !errors.Is(err, links.ErrExpired) {
		return nil, &Refusal{Code: InvalidLink, Err: err, Message: fmt.Sprintf(
			"The download link is none of this proxy's, is not whole, or was made for another tenant or client group than %s. Links also end when the proxy starts anew, unless an operator sets relay.keys. %s", x.Client.Name, again)}
	}
	u, allowed := x.Tenant.blobs.link(d.URL)
	if u != nil {
		x.File = fileOf(u)
	}
	op, known := p.Policy.Catalog.ByID(d.Operation)
	if known {
		x.Operation = op
	}
	switch {
	case err != nil:
		return nil, &Refusal{Code: LinkExpired, Err: err, Message: fmt.Sprintf("The download link expired at %s. %s", d.Expires.UTC().Format(time.RFC3339), again)}
	case !allowed || !known:
		return nil, refusal(InvalidLink, "The download link leads to a place that the proxy's configuration does not name any more. %s An operator finds the hosts under blob_hosts of the tenant's cloud.", again)
	}
	x.Decision = p.Policy.Granted(op, x.Client.Grants, x.situation())
	if x.Decision.Verdict == policy.NotGranted {
		return nil, notGranted(x, x.Decision.Rule)
	}
	// No token is involved, so nothing else can say no.
	x.Decision.Verdict = policy.Allowed
	if x.Decision.Ungranted {
		x.Decision.Verdict = policy.Reported
	}
	return u, nil
}

// fileOf names a file for records: its host and path, without the signature.
func fileOf(u *url.URL) string { return redact.Short(asciiLower(u.Host) + u.EscapedPath()) }

// blobHeaders are the request headers that go to storage, beside those that begin
// with If-. x-ms-range is Azure's own Range, which clients use for what is larger than
// 4 GiB (learn.microsoft.com/rest/api/storageservices, "Specifying the range header
// for Blob service operations", read 2026-11).
var blobHeaders = [...]string{"Range", "Accept", "Accept-Encoding", "Accept-Language", "User-Agent", "X-Ms-Range", "X-Ms-Client-Request-Id"}

// blobRequest makes the request for storage. What the caller accepts goes out as it
// is: a file that is stored in gzip is not to be unpacked on the way.
func blobRequest(in *http.Request, u *url.URL, version string) *http.Request {
	header := make(http.Header, 8)
	for _, name := range blobHeaders {
		if values, ok := in.Header[name]; ok {
			header[name] = values
		}
	}
	for name, values := range in.Header {
		if strings.HasPrefix(name, "If-") {
			header[name] = values
		}
	}
	for _, v := range in.Header["Connection"] {
		for name := range strings.SplitSeq(v, ",") {
			header.Del(strings.TrimSpace(name))
		}
	}
	if _, ok := header["User-Agent"]; !ok {
		header["User-Agent"] = []string{"defender-proxy/" + version}
	}
	return &http.Request{
		Method: in.Method, URL: u, Host: u.Host, Header: header,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
	}
}

// fetch sends the request, once, and waits for the answer to begin as long as for one
// of an API's. cancel ends ctx; the answer's body is the caller's to close.
func (p *Proxy) fetch(ctx context.Context, cancel context.CancelCauseFunc, x *Exchange, req *http.Request) (*http.Response, error) {
	connecting := time.AfterFunc(p.Limits.ConnectTimeout, func() { cancel(errNoConnection) })
	defer connecting.Stop()
	waiting := time.AfterFunc(p.Limits.ConnectTimeout+p.Limits.FirstByteTimeout, func() { cancel(errNoAnswer) })
	defer waiting.Stop()
	var connected atomic.Bool
	early := 0
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) {
			connecting.Stop()
			connected.Store(true)
		},
		Got1xxResponse: func(int, textproto.MIMEHeader) error {
			if early++; early > maxEarly {
				return errFlooded
			}
			return nil
		},
	})
	resp, err := p.Transport.RoundTrip(req.WithContext(traced))
	if cause := context.Cause(ctx); cause != nil {
		if err == nil {
			_ = resp.Body.Close() // it came just as it was given up
		}
		return nil, noFile(x, cause)
	}
	if err != nil {
		if connected.Load() { // then its text may quote what was sent, or came
			err = withoutBytes(err)
		}
		return nil, noFile(x, err)
	}
	x.FirstByte = time.Since(x.Start)
	resp.Body = &upstreamBody{
		ReadCloser: resp.Body, ctx: ctx, cancel: cancel, pause: p.Limits.FirstByteTimeout,
		timer: time.AfterFunc(p.Limits.FirstByteTimeout, func() { cancel(errNoAnswer) }),
	}
	return resp, nil
}

// noFile words that storage gave no answer.
func noFile(x *Exchange, err error) error {
	if errors.Is(err, context.Canceled) {
		return err // the caller left
	}
	r := &Refusal{
		Code:       RegionUnavailable,
		Message:    fmt.Sprintf("Storage did not answer for %s (%s). Try again; an operator finds out whether the proxy's machine can reach that host.", x.File, public(err)),
		Err:        err,
		Timeout:    errors.Is(err, errNoConnection) || errors.Is(err, errNoAnswer) || errors.Is(err, os.ErrDeadlineExceeded),
		RetryAfter: 5 * time.Second,
	}
	if errors.Is(err, errFlooded) {
		r.Code = InvalidAnswer
	}
	return r
}

// passFile passes an answer of storage's on: status and body as they come, the headers
// cleaned. Azure's own errors are answers like any other.
func (p *Proxy) passFile(w *answer, r *http.Request, resp *http.Response) error {
	bodiless := r.Method == http.MethodHead || resp.StatusCode == http.StatusNoContent || resp.StatusCode == http.StatusNotModified
	switch status := resp.StatusCode; {
	case status == http.StatusSwitchingProtocols:
		return &Refusal{Code: InvalidAnswer, Message: "Storage answered with something that nobody asked for. Try again.", Err: errSwitched, RetryAfter: time.Second}
	case status >= 300 && status < 400 && status != http.StatusNotModified:
		return refusal(InvalidAnswer, "Storage's answer is a redirect (%d). It is not followed: a download link leads to one place only.", status)
	case !bodiless && endless(resp):
		return brokeOff(errEndless)
	}
	clean(resp.Header)
	h := w.Header()
	for name, values := range resp.Header {
		switch name {
		case "Location", "Content-Location", "Operation-Location":
			// They lead past the proxy, and may be signed.
		default:
			h[name] = values
		}
	}
	h["Proxy-Status"] = []string{"defender-proxy; next-hop=storage"}
	return p.pass(w, resp.Body, resp.StatusCode, !bodiless && resp.ContentLength < 0)
}
