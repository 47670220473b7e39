package config

import (
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"time"

	"defender-proxy/internal/clients"
	"defender-proxy/internal/tenant"
)

// The kinds of text that a Go type alone does not tell.
const (
	kindSize     = "size"      // int64, bytes: 64KiB
	kindPercent  = "percent"   // float64, a share: 20% is 0.2
	kindGUID     = "guid"      // string, in lower case
	kindPath     = "path"      // string, a file beside the configuration or absolute
	kindOutput   = "output"    // the same, or stdout or stderr
	kindEndpoint = "endpoint"  // string, a base URL that tokens are sent to
	kindBase     = "base"      // string, a base URL for links
	kindProxy    = "proxy"     // ProxyURL
	kindAudience = "audience"  // string, a resource URI
	kindVault    = "vault"     // string, the URL of a secret in Azure Key Vault
	kindVaulted  = "vaulted"   // Secret, one that may be in Azure Key Vault
	kindAccount  = "account"   // string, a user or group of the machine, or its number
	kindSyslog   = "syslog"    // string, where syslog goes
	kindCollect  = "collector" // string, the URL of an OTLP collector
)

// isScalar reports whether a struct type is written as a single value.
func isScalar(t reflect.Type) bool {
	switch t {
	case reflect.TypeFor[netip.Prefix](), reflect.TypeFor[netip.Addr](), reflect.TypeFor[netip.AddrPort](), reflect.TypeFor[clients.Source](), reflect.TypeFor[time.Time](), reflect.TypeFor[LocalKey]():
		return true
	}
	return false
}

// parse reads text into v. It gives the reason why that cannot be, in words
// that follow the quoted text and do not repeat it, or "".
func parse(text string, v reflect.Value, kind string) (reason string) {
	switch p := v.Addr().Interface().(type) {
	case *time.Duration:
		*p, reason = parseDuration(text)
	case *netip.Prefix:
		*p, reason = parsePrefix(text)
	case *netip.Addr:
		*p, reason = parseAddr(text)
	case *netip.AddrPort:
		*p, reason = parseServer(text)
	case *clients.Source:
		var err error
		if *p, err = clients.ParseSource(text); err != nil {
			return err.Error()
		}
	case *time.Time:
		*p, reason = parseMoment(text)
	case *fs.FileMode:
		*p, reason = parseMode(text)
	case *tenant.ID:
		*p, reason = parseGUID(text)
	case *bool:
		if text != "true" && text != "false" {
			return "is not true or false"
		}
		*p = text == "true"
	case *int:
		n, err := strconv.ParseUint(text, 10, 31)
		if err != nil {
			return "is not a whole number in digits"
		}
		*p = int(n)
	case *int64:
		*p, reason = parseSize(text)
	case *float64:
		*p, reason = parsePercent(text)
	default:
		if text == "" {
			return "is empty"
		}
		text, reason = parseText(text, kind)
		v.SetString(text)
	}
	return reason
}

func parseText(text, kind string) (value, reason string) {
	switch kind {
	case kindGUID:
		id, reason := parseGUID(text)
		return string(id), reason
	case kindEndpoint:
		return parseURL(text, secure)
	case kindBase:
		return parseURL(text, webSchemes)
	case kindProxy:
		return parseProxyURL(text)
	case kindAudience:
		return parseAudience(text)
	case kindVault:
		return parseVaultURL(text)
	case kindAccount:
		return text, wrongAccount(text)
	case kindSyslog:
		return parseSyslog(text)
	case kindCollect:
		return parseCollector(text)
	case kindPath, kindOutput:
		if strings.ContainsRune(text, 0) {
			return "", "is not a path"
		}
	}
	return text, ""
}

func parseGUID(text string) (tenant.ID, string) {
	id, err := tenant.ParseID(text)
	if err != nil {
		return "", "is not a GUID such as 11111111-1111-1111-1111-111111111111"
	}
	return id, ""
}

func parseDuration(text string) (time.Duration, string) {
	const wanted = "is not a duration such as 500ms, 30s, 4m or 1h30m"
	if _, err := strconv.ParseFloat(text, 64); err == nil {
		return 0, "has no unit; write a duration such as 500ms, 30s, 4m or 1h30m"
	}
	if strings.ContainsAny(text, "+-") {
		return 0, wanted
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, wanted
	}
	return d, ""
}

var sizeUnits = []struct {
	name  string
	bytes uint64
}{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"B", 1}}

func parseSize(text string) (int64, string) {
	const wanted = "is not a size; write a whole number with its unit (B, KiB, MiB or GiB), such as 64KiB"
	for _, u := range sizeUnits {
		digits, found := strings.CutSuffix(text, u.name)
		if !found {
			continue
		}
		n, err := strconv.ParseUint(digits, 10, 63)
		if err != nil {
			return 0, wanted
		}
		if n > 1<<62/u.bytes {
			return 0, "is larger than any memory"
		}
		return int64(n * u.bytes), ""
	}
	if _, err := strconv.ParseUint(text, 10, 64); err == nil {
		return 0, "has no unit; write B, KiB, MiB or GiB after it, such as 64KiB"
	}
	return 0, wanted
}

func parsePercent(text string) (float64, string) {
	const wanted = "is not a percentage such as 20%"
	digits, found := strings.CutSuffix(text, "%")
	if !found || strings.Trim(digits, "0123456789.") != "" {
		return 0, wanted
	}
	p, err := strconv.ParseFloat(digits, 64)
	if err != nil {
		return 0, wanted
	}
	return p / 100, ""
}

// parsePrefix reads a prefix or a single address. IPv4 in IPv6 notation becomes
// IPv4, because that is how callers' addresses are compared.
func parsePrefix(text string) (netip.Prefix, string) {
	const wanted = "is neither an address such as 10.1.2.3 nor a prefix such as 10.1.2.0/24"
	address, bits, slash := strings.Cut(text, "/")
	addr, err := netip.ParseAddr(address)
	if err != nil {
		return netip.Prefix{}, wanted
	}
	if addr.Zone() != "" {
		return netip.Prefix{}, "has a zone; leave it out, prefixes hold on every interface"
	}
	if !slash {
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), ""
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, wanted
	}
	if addr.Is4In6() {
		if p.Bits() < 96 {
			return netip.Prefix{}, fmt.Sprintf("spans more than the IPv4 addresses; /%s is shorter than /96", bits)
		}
		p = netip.PrefixFrom(addr.Unmap(), p.Bits()-96)
	}
	if p.Masked() != p {
		return netip.Prefix{}, "has bits set behind the prefix; set them to 0, or write the address alone"
	}
	return p, ""
}

// parseAddr reads a single address.
func parseAddr(text string) (netip.Addr, string) {
	a, err := netip.ParseAddr(text)
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, "is not an address such as 10.1.2.3"
	}
	return a.Unmap(), ""
}

// parseServer reads the address of a DNS server, with or without a port.
func parseServer(text string) (netip.AddrPort, string) {
	if a, reason := parseAddr(text); reason == "" {
		return netip.AddrPortFrom(a, 53), ""
	}
	s, err := netip.ParseAddrPort(text)
	if err != nil || s.Port() == 0 || s.Addr().Zone() != "" {
		return netip.AddrPort{}, "is not the address of a DNS server such as 10.1.2.3 or 10.1.2.3:53"
	}
	return netip.AddrPortFrom(s.Addr().Unmap(), s.Port()), ""
}

// resolve gives the path of a file that the configuration names. A relative one
// starts at the configuration's own directory, so that it does not matter where
// the proxy was started.
func (d *decoder) resolve(path, kind string) string {
	if kind == kindOutput && (path == Stdout || path == Stderr) || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(d.dir, path)
}
