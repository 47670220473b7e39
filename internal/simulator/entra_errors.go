package simulator

import (
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/google/uuid"
)

// aadError is a refusal of Entra ID's.
type aadError struct {
	code int
	// args fill the sentence of the table.
	args []any
}

// aadErrors has status, OAuth error and sentence of each code, after
// "Microsoft Entra authentication and authorization error codes" and real
// answers.
var aadErrors = map[int]struct {
	status int
	oauth  string
	text   string
}{
	7000215: {401, "invalid_client", "Invalid client secret provided. Ensure the secret being sent in the request is the client secret value, not the client secret ID, for a secret added to app '%s'."},
	7000222: {401, "invalid_client", "The provided client secret keys for app '%s' are expired. Visit the Azure portal to create new keys for your app: https://aka.ms/NewClientSecret, or consider using certificate credentials for added security: https://aka.ms/certCreds."},
	7000218: {401, "invalid_client", "The request body must contain the following parameter: 'client_assertion' or 'client_secret'."},
	7000112: {401, "unauthorized_client", "Application '%s' is disabled."},
	700016:  {400, "unauthorized_client", "Application with identifier '%s' was not found in the directory '%s'. This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant. You may have sent your authentication request to the wrong tenant."},
	700082:  {400, "invalid_grant", "The refresh token has expired due to inactivity. The token was issued on %s and was inactive for %s."},
	90002:   {400, "invalid_request", "Tenant '%s' not found. Check to make sure you have the correct tenant ID and are signing into the correct cloud. Check with your subscription administrator, this may happen if there are no active subscriptions for the tenant."},
	500011:  {400, "invalid_resource", "The resource principal named %s was not found in the tenant named %s. This can happen if the application has not been installed by the administrator of the tenant or consented to by any user in the tenant. You might have sent your authentication request to the wrong tenant."},
	1002012: {400, "invalid_scope", "The provided value for scope %s is not valid. Client credential flows must have a scope value with /.default suffixed to the resource identifier (application ID URI)."},
	70011:   {400, "invalid_scope", "The provided request must include a 'scope' input parameter. The provided value for the input parameter 'scope' is not valid. The scope %s is not valid."},
	70003:   {400, "unsupported_grant_type", "The app requested an unsupported grant type '%s'."},
	65001:   {400, "invalid_grant", "The user or administrator has not consented to use the application with ID '%s'. Send an interactive authorization request for this user and resource."},
	50126:   {400, "invalid_grant", "Error validating credentials due to invalid username or password."},
	50034:   {400, "invalid_grant", "The user account %s does not exist in the %s directory. To sign into this application, the account must be added to the directory."},
	53003:   {400, "invalid_grant", "Access has been blocked by Conditional Access policies. The access policy does not allow token issuance."},
	900144:  {400, "invalid_request", "The request body must contain the following parameter: '%s'."},
	9002313: {400, "invalid_request", "Invalid request. Request is malformed or invalid."},
	900561:  {400, "invalid_request", "The endpoint only accepts POST requests. Received a %s request."},
	90033:   {503, "temporarily_unavailable", "A transient error has occurred. Please try again."},
	50196:   {429, "invalid_request", "The server terminated an operation because it encountered a client request loop. Please contact your app vendor."},
	50076:   {400, "interaction_required", "Due to a configuration change made by your administrator, or because you moved to a new location, you must use multi-factor authentication to access '%s'."},
	50057:   {400, "invalid_grant", "The user account is disabled."},
	50055:   {400, "invalid_grant", "The password is expired."},
	70000:   {400, "invalid_grant", "Provided grant is invalid or malformed."},
	70008:   {400, "invalid_grant", "The provided authorization code or refresh token has expired due to inactivity. Send a new interactive authorization request for this user and resource."},
	70016:   {400, "authorization_pending", "OAuth 2.0 device flow error. Authorization is pending. Continue polling."},
	70018:   {400, "bad_verification_code", "The verification code is not known."},
	70019:   {400, "expired_token", "Verification code expired. Have the user retry the sign-in."},
	65004:   {400, "authorization_declined", "User declined to consent to access the app."},
	90120:   {400, "invalid_grant", "The request was already authorized or declined."},
	50173:   {400, "invalid_grant", "The provided grant has expired due to it being revoked, a fresh auth token is needed. The user might have changed or reset their password. The grant was issued on '%s' and the TokensValidFrom date (before which tokens are not valid) for this user is '%s'."},
	54005:   {400, "invalid_grant", "OAuth2 Authorization code was already redeemed, please retry with a new valid code or use an existing refresh token."},
	501481:  {400, "invalid_grant", "The Code_Verifier does not match the code_challenge supplied in the authorization request."},
	501491:  {400, "invalid_request", "Invalid size of Code_Challenge parameter."},
	50148:   {400, "invalid_grant", "The code_verifier does not match the code_challenge supplied in the authorization request for PKCE."},
	500112:  {400, "invalid_client", "The reply address '%s' does not match the reply address '%s' provided when requesting Authorization code."},
	50011:   {400, "invalid_request", "The redirect URI '%s' specified in the request does not match the redirect URIs configured for the application '%s'. Make sure the redirect URI sent in the request matches one added to your application in the Azure portal."},
	900971:  {400, "invalid_request", "No reply address provided."},
	50020:   {400, "invalid_grant", "User account '%s' does not exist in tenant '%s' and cannot access the application '%s' in that tenant. The account needs to be added as an external user in the tenant first. Sign out and sign in again with a different Microsoft Entra user account."},
	50058:   {400, "login_required", "A silent sign-in request was sent but no user is signed in."},
	90023:   {400, "invalid_request", "The request is not valid: %s."},
	700054:  {400, "unsupported_response_type", "response_type '%s' is not enabled for the application."},
	700021:  {401, "invalid_client", "Client assertion application identifier doesn't match 'client_id' parameter. Review the documentation at https://learn.microsoft.com/entra/identity-platform/certificate-credentials ."},
	700023:  {401, "invalid_client", "Client assertion audience claim does not match Realm issuer. Review the documentation at https://learn.microsoft.com/entra/identity-platform/certificate-credentials ."},
	700024:  {401, "invalid_client", "Client assertion is not within its valid time range. Current time: %s, assertion valid from %s, expiry time of assertion %s. Review the documentation at https://learn.microsoft.com/entra/identity-platform/certificate-credentials ."},
	700025:  {401, "invalid_client", "Client is public so neither 'client_assertion' nor 'client_secret' should be presented."},
	700027:  {401, "invalid_client", "The certificate with identifier used to sign the client assertion is not registered on application. [Reason - %s, Thumbprint of key used by client: '%s', Please visit the Azure Portal, Graph Explorer or directly use MS Graph to see configured keys for app Id '%s']."},
	50027:   {400, "invalid_request", "JWT token is invalid or malformed. %s"},
	70025:   {401, "invalid_client", "The client '%s' has no configured federated identity credentials."},
	700211:  {401, "invalid_client", "No matching federated identity record found for presented assertion issuer '%s'. Please check your federated identity credential Subject, Audience and Issuer against the presented assertion. https://learn.microsoft.com/entra/workload-id/workload-identity-federation"},
	700212:  {401, "invalid_client", "No matching federated identity record found for presented assertion audience '%s'. Please check your federated identity credential Subject, Audience and Issuer against the presented assertion. https://learn.microsoft.com/entra/workload-id/workload-identity-federation"},
	700213:  {401, "invalid_client", "No matching federated identity record found for presented assertion subject '%s'. Please check your federated identity credential Subject, Audience and Issuer against the presented assertion. https://learn.microsoft.com/entra/workload-id/workload-identity-federation"},
	7002138: {401, "invalid_client", "No matching federated identity record found for presented assertion subject '%s'. The subject matches with case-insensitive comparison, but not with case-sensitive comparison. Please check your federated identity credential Subject, Audience and Issuer against the presented assertion. https://learn.microsoft.com/entra/workload-id/workload-identity-federation"},
	90061:   {400, "invalid_request", "Request to External OIDC endpoint failed."},
	50194:   {400, "invalid_request", "Application '%s' is not configured as a multi-tenant application. Usage of the /common endpoint is not supported for such apps created after '10/15/2018'. Use a tenant-specific endpoint or configure the application to be multi-tenant."},
}

func refuse(code int, args ...any) *aadError { return &aadError{code: code, args: args} }

// sentence is the text of the error. Codes that a fault asks for may lack
// arguments; they then show none.
func (e *aadError) sentence() string {
	row, ok := aadErrors[e.code]
	if !ok {
		return "The request was refused."
	}
	want := 0
	for i := 0; i+1 < len(row.text); i++ {
		if row.text[i] == '%' {
			want++
		}
	}
	args := e.args
	for len(args) < want {
		args = append(args, "")
	}
	return fmt.Sprintf(row.text, args[:want]...)
}

// write answers in Entra ID's form, the same for both versions of the endpoint.
func (e *aadError) write(w http.ResponseWriter, r *http.Request, now time.Time) {
	row, ok := aadErrors[e.code]
	if !ok {
		row.status, row.oauth = http.StatusBadRequest, "invalid_request"
	}
	trace := uuid.NewString()
	correlation := r.Header.Get("client-request-id")
	if _, err := uuid.Parse(correlation); err != nil {
		correlation = uuid.NewString()
	}
	stamp := now.UTC().Format("2006-01-02 15:04:05Z")
	w.Header().Set("x-ms-request-id", trace)
	if row.status == http.StatusTooManyRequests || row.status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	writeJSON(w, row.status, map[string]any{
		"error": row.oauth,
		"error_description": fmt.Sprintf("AADSTS%d: %s Trace ID: %s Correlation ID: %s Timestamp: %s",
			e.code, e.sentence(), trace, correlation, stamp),
		"error_codes":    []int{e.code},
		"timestamp":      stamp,
		"trace_id":       trace,
		"correlation_id": correlation,
		"error_uri":      "https://login.microsoftonline.com/error?code=" + strconv.Itoa(e.code),
	})
}

// writeJSON answers with a small document.
func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := marshalPlain(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	w.Write(body)
}
