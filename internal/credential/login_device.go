package credential

import (
	"context"
	"errors"
	"net"
	"net/url"
	"strings"
	"time"

	"golang.org/x/oauth2"
)

// Bounds of the wait between two questions, in seconds. Entra ID says 5.
const (
	usualInterval   = 5
	longestInterval = 300
)

// byDevice signs in with a code that the person types on any device
// (RFC 8628; learn.microsoft.com/entra/identity-platform/v2-oauth2-device-code).
func (s *signIn) byDevice(ctx context.Context) (*oauth2.Token, error) {
	device, err := s.config.DeviceAuth(ctx)
	if err != nil {
		return nil, err
	}
	s.quieting = append(s.quieting, device.DeviceCode)
	if device.DeviceCode == "" || !showable(device.UserCode) || !openable(device.VerificationURI) {
		return nil, errLoginNotEntra
	}
	if device.Interval < 1 {
		device.Interval = usualInterval
	}
	if device.Expiry.IsZero() {
		device.Expiry = time.Now().Add(devicePatience)
	}
	if end, ok := ctx.Deadline(); ok && end.Before(device.Expiry) {
		device.Expiry = end
	}
	s.Show(LoginPrompt{URL: device.VerificationURI, Code: device.UserCode, Expires: device.Expiry})
	return s.redeem(ctx, func(options ...oauth2.AuthCodeOption) (*oauth2.Token, error) {
		return s.poll(ctx, device, options)
	})
}

// poll asks until the person has signed in or declined, or the code has expired.
// A question that got no answer is asked again, more slowly (RFC 8628, section
// 3.5).
func (s *signIn) poll(ctx context.Context, device *oauth2.DeviceAuthResponse, options []oauth2.AuthCodeOption) (*oauth2.Token, error) {
	var last error // that came of a question
	for {
		device.Interval = min(device.Interval, longestInterval)
		answer, err := s.config.DeviceAccessToken(ctx, device, options...)
		over := !time.Now().Before(device.Expiry)
		switch {
		case err == nil:
			return answer, nil
		case over && last != nil && s.wire.away:
			// The person may well have signed in, and Entra ID could not be asked.
			return nil, &outage{last}
		case ctx.Err() != nil:
			return nil, err
		case over:
			return nil, errNoAnswer
		case !passing(err):
			return nil, err
		}
		last = err
		device.Interval += usualInterval
	}
}

// outage is why the questions got no answer until it was too late.
type outage struct{ error }

// passing reports whether the same question may be answered the next time.
func passing(err error) bool {
	if errors.Is(err, errLoginTooLong) || errors.Is(err, errLoginNotEntra) {
		return false
	}
	if re, ok := errors.AsType[*oauth2.RetrieveError](err); ok {
		return cannotNow(re.Response)
	}
	_, unanswered := errors.AsType[*url.Error](err)
	return unanswered
}

// showable reports whether a code can be printed to a terminal.
func showable(code string) bool {
	return 0 < len(code) && len(code) <= 64 && !strings.ContainsFunc(code, func(r rune) bool { return r <= ' ' || r > '~' })
}

// openable reports whether a person may be sent to the address.
func openable(address string) bool {
	u, err := url.Parse(address)
	if err != nil || len(address) > 2<<10 || strings.ContainsFunc(address, func(r rune) bool { return r <= ' ' || r > '~' }) || u.User != nil {
		return false
	}
	ip := net.ParseIP(u.Hostname())
	return u.Host != "" && (u.Scheme == "https" || u.Scheme == "http" && (u.Hostname() == "localhost" || ip != nil && ip.IsLoopback()))
}
