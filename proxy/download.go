package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
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

// relays reports whether the links to storage in an operation's answer are sealed.
func (p *Proxy) relays(x *Exchange) bool {
	return p.Downloads != nil && x.Operation.SASLinks && len(x.Tenant.blobs) > 0
}

// wholly takes out of a request what asks for a part of an answer whose links are
// sealed: a part may hold a part of a link.
func (p *Proxy) wholly(h http.Header, x *Exchange) {
	if p.relays(x) {
		delete(h, "Range")
		delete(h, "If-Range")
	}
}

// sealable refuses a part of an answer whose links are sealed, and drops links to
// storage from its headers.
func (p *Proxy) sealable(resp *http.Response, x *Exchange) error {
	if !p.relays(x) {
		return nil
	}
	if resp.StatusCode == http.StatusPartialContent {
		return &Refusal{Code: InvalidAnswer, Message: "Microsoft answered with a part that nobody asked for. It may hold a part of a download link, so it is not passed on.", RetryAfter: time.Second}
	}
	for _, name := range linkNames {
		if slices.ContainsFunc(resp.Header[name], func(link string) bool { _, ok := x.Tenant.blobs.link(link); return ok }) {
			delete(resp.Header, name)
		}
	}
	return nil
}

// linkNames are the headers that hold links.
var linkNames = [...]string{"Location", "Content-Location", "Operation-Location"}

// relayed seals the download links of a document.
func (p *Proxy) relayed(src io.Reader, x *Exchange) io.Reader {
	if !p.relays(x) {
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
	if err := dropBody(w, r); err != nil {
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
	if named, perr := url.Parse(d.URL); perr == nil && named.Host != "" {
		x.File = fileOf(named)
	}
	u, allowed := x.Tenant.blobs.link(d.URL)
	op, known := p.Policy.Catalog.ByID(d.Operation)
	if known {
		x.Operation = op
	}
	switch {
	case err != nil:
		return nil, &Refusal{Code: LinkExpired, Err: err, Message: fmt.Sprintf("The download link expired at %s. %s", d.Expires.UTC().Format(time.RFC3339), again)}
	case !known:
		return nil, &Refusal{Code: InvalidLink, Err: errNoOperation, Message: fmt.Sprintf("The download link was given by operation %s, which the proxy's catalog does not have any more. %s", d.Operation, again)}
	case !allowed:
		return nil, &Refusal{Code: InvalidLink, Err: errNoBlobHost, Message: fmt.Sprintf("The download link leads to a place that the proxy's configuration does not name any more. %s An operator finds the hosts under blob_hosts of the tenant's cloud.", again)}
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

var (
	errNoOperation = errors.New("the operation that gave the link is not in the catalog")
	errNoBlobHost  = errors.New("the link's host is not among blob_hosts")
)

// maxFile bounds, in bytes, the name of a file in records. A sample of Microsoft's has
// 258 (learn.microsoft.com/defender-endpoint/api/export-certificate-inventory-assessment,
// section 2.6.2, read 2026-11), and the parts of an export differ at their ends.
const maxFile = 2 << 10

// fileOf names a file for records: its host and path, without the signature. Of one
// that is too long the middle is left out.
func fileOf(u *url.URL) string {
	s := redact.Text(asciiLower(u.Host) + u.EscapedPath())
	if len(s) > maxFile {
		s = s[:maxFile/2] + "…" + s[len(s)-maxFile/2:]
	}
	return s
}
