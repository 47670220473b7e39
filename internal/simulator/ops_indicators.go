package simulator

import (
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

func indicatorHandlers() map[string]handler {
	return map[string]handler{
		"indicators.list": list(collection{name: "Indicators"}, func(c *call) ([]indicator, error) {
			out := []indicator{}
			for _, in := range snapshot(c.fleet, &c.fleet.indicators) {
				if c.sees(in) {
					out = append(out, in)
				}
			}
			return out, nil
		}),
		"indicators.get": func(c *call) (reply, error) {
			for _, in := range snapshot(c.fleet, &c.fleet.indicators) {
				if in.ID == c.id() && c.sees(in) {
					return entity(c, "Indicators", in)
				}
			}
			return reply{}, notFound("indicator", c.id())
		},
		"indicators.create": func(c *call) (reply, error) {
			f, p := c.object()
			if p != nil {
				return reply{}, p
			}
			in, p := c.upsert(f)
			if p != nil {
				return reply{}, p
			}
			return entity(c, "Indicators", in)
		},
		"indicators.import": importIndicators,
		"indicators.delete": func(c *call) (reply, error) {
			if p := c.deleteIndicators([]string{c.id()}); p != nil {
				return reply{}, p
			}
			return reply{status: http.StatusNoContent}, nil
		},
		"indicators.batchDelete": func(c *call) (reply, error) {
			f, p := c.object()
			if p != nil {
				return reply{}, p
			}
			ids, p := f.batch("IndicatorIds", 500)
			if p != nil {
				return reply{}, p
			}
			if p := c.deleteIndicators(ids); p != nil {
				return reply{}, p
			}
			return reply{status: http.StatusNoContent}, nil
		},
	}
}

// sees tells whether the caller may see an indicator: with Ti.ReadWrite.All
// and as a user all of them, otherwise those it created.
func (c *call) sees(in indicator) bool {
	return c.who.claims.IDType == "user" || anyOf(c.who.claims.Roles, []string{"Ti.ReadWrite.All"}) || in.CreatedBy == c.who.claims.AppID
}

// indicatorTypes are the documented types.
var indicatorTypes = []string{"FileSha1", "FileMd5", "CertificateThumbprint", "FileSha256", "IpAddress", "DomainName", "Url"}

// readIndicator checks a body without keeping anything.
func readIndicator(f fields) (indicator, *problem) {
	var in indicator
	var p *problem
	for _, one := range []struct {
		name string
		into *string
	}{{"indicatorValue", &in.IndicatorValue}, {"title", &in.Title}, {"description", &in.Description}} {
		if *one.into, p = f.need(one.name); p != nil {
			return in, p
		}
	}
	if in.IndicatorType, p = f.oneOf("indicatorType", "", indicatorTypes...); p != nil {
		return in, p
	}
	if in.Action, p = f.oneOf("action", "", "Alert", "Warn", "Block", "Audit", "BlockAndRemediate", "AlertAndBlock", "Allowed"); p != nil {
		return in, p
	}
	if p := checkIndicatorValue(in.IndicatorType, in.IndicatorValue); p != nil {
		return in, p
	}
	var severity string
	if p := f.optionalOneOf("severity", &severity, "Informational", "Low", "Medium", "High"); p != nil {
		return in, p
	}
	in.Severity = optional(severity)
	for _, one := range []struct {
		name string
		into *optional
	}{{"application", &in.Application}, {"recommendedActions", &in.RecommendedActions}, {"educateUrl", &in.EducateURL}, {"externalId", &in.ExternalID}} {
		text, p := f.text(one.name)
		if p != nil {
			return in, p
		}
		*one.into = optional(text)
	}
	if _, p := f.read("generateAlert", &in.GenerateAlert); p != nil {
		return in, p
	}
	if in.Action == "Audit" && !in.GenerateAlert {
		return in, invalidInput("Invalid input generateAlert: it must be true when action is Audit.")
	}
	if in.RBACGroupNames, p = f.texts("rbacGroupNames"); p != nil {
		return in, p
	}
	if in.RBACGroupNames == nil {
		in.RBACGroupNames = []string{}
	}
	in.RBACGroupIDs = []string{}
	expires, p := f.text("expirationTime")
	if p != nil {
		return in, p
	}
	if expires != "" {
		when, ok := parseTime(expires)
		if !ok {
			return in, invalidInput("Invalid input expirationTime: '%s'.", expires)
		}
		in.ExpirationTime = at(when)
	}
	return in, nil
}

func checkIndicatorValue(kind, value string) *problem {
	hashes := map[string]int{"FileSha1": 40, "FileMd5": 32, "FileSha256": 64, "CertificateThumbprint": 40}
	switch kind {
	case "IpAddress": // a range is refused
		if net.ParseIP(value) == nil {
			return problemf(http.StatusBadRequest, "InvalidIpAddress", "IP address %s is invalid.", value)
		}
	case "DomainName":
		if !strings.Contains(value, ".") || strings.ContainsAny(value, " /:\\") {
			return problemf(http.StatusBadRequest, "InvalidDomainName", "Domain name %s is invalid.", value)
		}
	case "Url":
		if u, err := url.Parse(value); err != nil || u.Host == "" {
			return problemf(http.StatusBadRequest, "InvalidUrl", "URL %s is invalid.", value)
		}
	default:
		if !isHex(value, hashes[kind]) {
			return problemf(http.StatusBadRequest, "InvalidHashValue", "Hash value %s is invalid.", value)
		}
	}
	return nil
}

// upsert keeps an indicator; one of the same type and value is updated.
func (c *call) upsert(f fields) (indicator, *problem) {
	in, p := readIndicator(f)
	if p != nil {
		return in, p
	}
	now := at(c.now)
	in.LastUpdateTime, in.LastUpdatedBy, in.CreatedBySource = now, optional(c.who.name()), "PublicApi"
	in.CreatedBy, in.CreatedByDisplayName, in.CreationTimeDateTimeUTC = c.who.claims.AppID, optional(c.who.name()), now
	in.Category = 1
	fl := c.fleet
	fl.mu.Lock()
	defer fl.mu.Unlock()
	for i, old := range fl.indicators {
		if old.IndicatorType == in.IndicatorType && strings.EqualFold(old.IndicatorValue, in.IndicatorValue) {
			in.ID, in.CreatedBy, in.CreatedByDisplayName = old.ID, old.CreatedBy, old.CreatedByDisplayName
			in.CreationTimeDateTimeUTC = old.CreationTimeDateTimeUTC
			fl.indicators = slices.Clone(fl.indicators)
			fl.indicators[i] = in
			return in, nil
		}
	}
	if p := full(fl.indicators); p != nil {
		return in, p
	}
	fl.nextID++
	in.ID = strconv.FormatInt(fl.nextID, 10)
	fl.indicators = append(slices.Clip(fl.indicators), in)
	return in, nil
}

// importResult tells what became of one indicator of an import.
type importResult struct {
	ID            optional `json:"id"`
	Indicator     string   `json:"indicator"`
	IsFailed      bool     `json:"isFailed"`
	FailureReason optional `json:"failureReason"`
}

// importIndicators takes up to 500; those that fail do so inside a 200.
func importIndicators(c *call) (reply, error) {
	f, p := c.object()
	if p != nil {
		return reply{}, p
	}
	var rows []fields
	if ok, p := f.read("Indicators", &rows); p != nil {
		return reply{}, p
	} else if !ok || len(rows) == 0 {
		return reply{}, missing("Indicators")
	}
	if len(rows) > 500 {
		return reply{}, problemf(http.StatusBadRequest, "MaximumBatchSizeExceeded", "Maximum batch size exceeded. Received: %d, allowed: 500.", len(rows))
	}
	out := []any{}
	for _, row := range rows {
		in, p := c.upsert(row)
		r := importResult{ID: optional(in.ID), Indicator: in.IndicatorValue}
		if p != nil {
			r.ID, r.IsFailed, r.FailureReason = "", true, optional(p.message)
		}
		out = append(out, r)
	}
	return reply{body: page{Context: c.metadata() + "Collection(microsoft.windowsDefenderATP.api.ImportIndicatorResult)", Value: out}}, nil
}

// deleteIndicators deletes all, or none when one is unknown.
func (c *call) deleteIndicators(ids []string) *problem {
	fl := c.fleet
	fl.mu.Lock()
	defer fl.mu.Unlock()
	for _, id := range ids {
		if _, err := strconv.ParseInt(id, 10, 64); err != nil {
			return invalidInput("Invalid input indicator id: '%s'.", id)
		}
		if !slices.ContainsFunc(fl.indicators, func(in indicator) bool { return in.ID == id && c.sees(in) }) {
			return notFound("indicator", id)
		}
	}
	kept := []indicator{}
	for _, in := range fl.indicators {
		if !slices.Contains(ids, in.ID) {
			kept = append(kept, in)
		}
	}
	fl.indicators = kept
	return nil
}
