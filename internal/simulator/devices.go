package simulator

import (
	"crypto/rand"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// deviceLife is how long a code may be typed
// (learn.microsoft.com/entra/identity-platform/v2-oauth2-device-code).
const deviceLife = 15 * time.Minute

// userCodeLetters leave out what looks alike.
const userCodeLetters = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"

// deviceCode is the device authorization endpoint.
func (s *Simulator) deviceCode(w http.ResponseWriter, r *http.Request, rec *Request, tenantName string, version int) {
	d, refusal := s.newDevice(w, r, tenantName, version)
	if refusal != nil {
		refusal.write(w, r, s.now())
		return
	}
	code := opaque("1.", 64)
	letters := make([]byte, 9)
	rand.Read(letters)
	for i, b := range letters {
		letters[i] = userCodeLetters[int(b)%len(userCodeLetters)]
	}
	d.userCode = string(letters)
	s.sessions.mu.Lock()
	s.sessions.devices.add(code, d)
	s.sessions.mu.Unlock()
	s.ring.update(rec, func(q *Request) { q.Tenant, q.App = d.tenantID, d.clientID })

	at := s.Authority() + "/common/oauth2/deviceauth"
	message := "To sign in, use a web browser to open the page " + at + " and enter the code " + d.userCode + " to authenticate."
	body := map[string]any{
		"device_code": code, "user_code": d.userCode, "expires_in": int(deviceLife / time.Second),
		"interval": max(1, int(s.cfg.DeviceInterval/time.Second)), "message": message,
	}
	if version == 2 {
		body["verification_uri"] = at
	} else {
		body["verification_url"] = at
	}
	writeJSON(w, http.StatusOK, body)
}

func (s *Simulator) newDevice(w http.ResponseWriter, r *http.Request, tenantName string, version int) (*device, *aadError) {
	if r.Method != http.MethodPost {
		return nil, refuse(900561, r.Method)
	}
	form, refusal := tokenForm(w, r)
	if refusal != nil {
		return nil, refusal
	}
	t, refusal := s.namedTenant(tenantName, form.Get("client_id"))
	if refusal != nil {
		return nil, refusal
	}
	if form.Get("client_id") == "" {
		return nil, refuse(900144, "client_id")
	}
	a, ok := s.directory.app(t, form.Get("client_id"))
	if !ok {
		return nil, refuse(700016, form.Get("client_id"), t.name)
	}
	if a.disabled {
		return nil, refuse(7000112, a.clientID)
	}
	if _, _, _, refusal := resource(t, form, version, true); refusal != nil {
		return nil, refusal
	}
	return &device{
		wanted: wanted{
			tenantID: t.id, clientID: a.clientID, version: version,
			scope: form.Get("scope"), resource: form.Get("resource"),
		},
		expires: s.now().Add(deviceLife),
	}, nil
}

// deviceGrant is what the device asks again and again.
func (s *Simulator) deviceGrant(t *tenant, a app, form url.Values, version int) (granted, *aadError) {
	code := form.Get("device_code")
	if code == "" {
		code = form.Get("code") // the older version's name
	}
	if code == "" {
		return granted{}, refuse(900144, "device_code")
	}
	s.sessions.mu.Lock()
	defer s.sessions.mu.Unlock()
	d := s.sessions.devices.rows[code]
	switch {
	case d == nil, !strings.EqualFold(d.clientID, a.clientID), d.tenantID != t.id:
		return granted{}, refuse(70018)
	case d.state == deviceDeclined:
		return granted{}, refuse(65004)
	case s.now().After(d.expires):
		return granted{}, refuse(70019)
	case d.state == devicePending:
		return granted{}, refuse(70016)
	}
	user, refusal := findUser(t, a, d.user)
	if refusal != nil {
		return granted{}, refusal
	}
	g, refusal := s.userTokens(t, a, user, restore(form, d.wanted), version, 0)
	if refusal == nil {
		delete(s.sessions.devices.rows, code)
	}
	return g, refusal
}

// devicePage is what a person finds at the address that the device shows.
func (s *Simulator) devicePage(w http.ResponseWriter) {
	htmlPage(w, http.StatusOK, "Enter code", "This is a simulator. Approve a code with: curl -X PUT "+s.ControlURL()+`/devices/CODE -d '{"user":"analyst@contoso.onmicrosoft.com"}' and decline it with DELETE.`)
}
