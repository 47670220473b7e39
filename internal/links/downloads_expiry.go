package links

import (
	"net/url"
	"regexp"
	"strings"
	"time"
)

// unsignedLife is how long a link is sealed for that does not say when it expires.
const unsignedLife = time.Hour

// Expiry is the moment at which the link with this raw query expires: that of its se=,
// the end of a shared access signature; an hour from now where there is none that can
// be read. Whatever is believed here, the storage judges for itself.
func Expiry(rawQuery string, now time.Time) time.Time {
	for option := range strings.SplitSeq(rawQuery, "&") {
		name, value, _ := strings.Cut(option, "=")
		if name != "se" {
			continue
		}
		// PathUnescape leaves a plus alone, which begins an offset here.
		if text, err := url.PathUnescape(value); err == nil {
			if at, ok := sasTime(text); ok {
				return at
			}
		}
		break
	}
	return now.Add(unsignedLife)
}

// sasForm is a time of Azure Storage: the date, then perhaps the time with or without
// seconds, up to seven digits of fractions, and Z or an offset, which may be left out
// (learn.microsoft.com/rest/api/storageservices/formatting-datetime-values, read
// 2026-11).
var sasForm = regexp.MustCompile(`^(\d{4}-\d{2}-\d{2})(?:T(\d{2}:\d{2})(:\d{2}(?:\.\d{1,7})?)?(Z|[+-]\d{2}:\d{2})?)?$`)

func sasTime(text string) (time.Time, bool) {
	m := sasForm.FindStringSubmatch(text)
	if m == nil {
		return time.Time{}, false
	}
	clock, seconds, zone := m[2], m[3], m[4]
	if clock == "" {
		clock = "00:00"
	}
	if seconds == "" {
		seconds = ":00"
	}
	if zone == "" {
		zone = "Z"
	}
	at, err := time.Parse(time.RFC3339Nano, m[1]+"T"+clock+seconds+zone)
	return at, err == nil
}
