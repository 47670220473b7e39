package listen

// frame tells where a request's body ends. The zero value is no body.
type frame struct {
	left  int64 // bytes of the body, or of the data of the chunk
	state chunkState
	// of the line of a chunk's size
	size   int64
	digits int
	length int
}

// frameOf gives the frame that a head decided on.
func (h *head) frame() frame {
	if h.codings > 0 {
		return frame{state: chunkSize}
	}
	return frame{left: h.length}
}

// over reports whether the body has ended.
func (f *frame) over() bool { return f.left == 0 && f.state == unchunked }

// chunkState is what the next byte of a chunked body belongs to (RFC 9112, section
// 7.1).
type chunkState uint8

const (
	unchunked chunkState = iota
	chunkSize
	chunkSizeLF
	extensionName
	extensionNameOn
	extensionValue
	extensionToken
	extensionQuoted
	extensionEscape
	extensionEnd
	chunkData
	chunkDataCR
	chunkDataLF
	lastCR
	lastLF
)

const (
	whyTrailer   = "The request has trailers, which are not taken."
	whyChunk     = "The request's body is not made of chunks as its Transfer-Encoding says."
	whyChunkSize = "The size of a chunk of the request's body is not a plain hexadecimal number."
	whyExtension = "A chunk of the request's body has an extension that is not NAME=VALUE, or is too long."
)

// maxChunkLine is the longest line of a chunk's size, with its extensions.
const maxChunkLine = 256

// scan tells how many of the bytes belong to the body, up to its end or to what
// is wrong. What net/http would read out of a chunk's line in its own way (spaces,
// extensions of any form, trailers) does not reach it.
func (f *frame) scan(b []byte) (n int, v *Violation) {
	for n < len(b) && !f.over() {
		if f.state == unchunked || f.state == chunkData {
			skip := min(f.left, int64(len(b)-n))
			n += int(skip)
			if f.left -= skip; f.left == 0 && f.state == chunkData {
				f.state = chunkDataCR
			}
			continue
		}
		if v := f.step(b[n]); v != nil {
			return n, v
		}
		n++
	}
	return n, nil
}

func (f *frame) step(c byte) *Violation {
	switch f.state {
	case chunkDataCR, lastCR:
		if c != '\r' {
			if f.state == lastCR && c != '\n' {
				return bad(whyTrailer)
			}
			return bad(whyChunk)
		}
		f.state++ // the line feed
		return nil
	case chunkDataLF, lastLF:
		if c != '\n' {
			return bad(whyChunk)
		}
		if f.state == lastLF {
			f.state = unchunked
		} else {
			*f = frame{state: chunkSize}
		}
		return nil
	}
	return f.sizeLine(c)
}

// sizeLine reads the line that begins a chunk.
func (f *frame) sizeLine(c byte) *Violation {
	if f.length++; f.length > maxChunkLine {
		return bad(whyExtension)
	}
	if f.state == chunkSizeLF {
		if c != '\n' {
			return bad(whyBareCR)
		}
		if f.left = f.size; f.left == 0 {
			f.state = lastCR
		} else {
			f.state = chunkData
		}
		return nil
	}
	if f.state == chunkSize {
		const most = 15 // digits, so that no sum overflows
		if d := unhex(c); d >= 0 && f.digits < most {
			f.size, f.digits = f.size<<4|int64(d), f.digits+1
			return nil
		}
		switch {
		case f.digits == 0, c != '\r' && c != ';':
			if c == '\n' {
				return bad(whyBareLF)
			}
			return bad(whyChunkSize)
		case c == '\r':
			f.state = chunkSizeLF
		default:
			f.state = extensionName
		}
		return nil
	}
	return f.extension(c)
}

// extension reads ;name=value behind a size. Their meaning is nobody's, but
// programs have differed in where they end (CVE-2025-22871, CVE-2025-55315).
func (f *frame) extension(c byte) *Violation {
	ends := f.state == extensionNameOn || f.state == extensionToken || f.state == extensionEnd
	switch {
	case c == '\n':
		return bad(whyBareLF)
	case ends && c == '\r':
		f.state = chunkSizeLF
	case ends && c == ';':
		f.state = extensionName
	case f.state == extensionNameOn && c == '=':
		f.state = extensionValue
	case f.state == extensionValue && c == '"':
		f.state = extensionQuoted
	case f.state == extensionQuoted && c == '"':
		f.state = extensionEnd
	case f.state == extensionQuoted && c == '\\':
		f.state = extensionEscape
	case (f.state == extensionQuoted || f.state == extensionEscape) && ' ' <= c && c < 0x7f:
		f.state = extensionQuoted
	case (f.state == extensionName || f.state == extensionNameOn) && tokenByte[c]:
		f.state = extensionNameOn
	case (f.state == extensionValue || f.state == extensionToken) && tokenByte[c]:
		f.state = extensionToken
	default:
		return bad(whyExtension)
	}
	return nil
}
