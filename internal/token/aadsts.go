package token

import (
	"regexp"
	"strconv"
	"strings"
	"time"
)

// advice is what an error code of Entra ID means to an operator. {app},
// {tenant}, {audience} and {consent} stand for the account's values; in the
// remedy, {clock} stands for what is known of the clocks, or nothing.
type advice struct {
	sentence, remedy string
	// transient codes go away by themselves.
	transient bool
}

// adviceByCode is by AADSTS code. Meanings are from "Microsoft Entra
// authentication and authorization error codes"
// (learn.microsoft.com/entra/identity-platform/reference-error-codes, stored
// copy of MicrosoftDocs/entra-docs read 2026-11). Codes marked * are not on
// that page; their meaning is the text that Entra sends with them, as quoted in
// public bug reports.
//
// Microsoft warns that codes change. A code decides words and whether to call a
// failure transient, nothing else.
var adviceByCode = map[int]advice{
	// The secret.
	7000215: {
		sentence: "Entra ID does not know the client secret of application {app}.",
		remedy:   "Set the secret's value, not its ID, without spaces or line ends around it; or create a new one under App registrations, Certificates & secrets.",
	},
	7000222: {
		sentence: "The client secret of application {app} has expired.",
		remedy:   "Create a new one under App registrations, Certificates & secrets, and put it where the configuration reads it.",
	},
	7000218: {
		sentence: "Entra ID found no client secret in the request of application {app}.",
		remedy:   "Check that the secret's file or variable is not empty, and that no egress proxy changes the request.",
	},
	70002: {
		sentence: "Entra ID does not accept the credential of application {app}.",
		remedy:   "Check the client secret; create a new one under App registrations, Certificates & secrets, if in doubt.",
	},
	700025: {
		sentence: "Application {app} is registered as a public client, which takes no client secret.",
		remedy:   "Use an application that is registered as a confidential client (platform Web, not a single-page or desktop application).",
	},

	// The application and the tenant.
	700016: {
		sentence: "Application {app} is not known in tenant {tenant}.",
		remedy:   "Check client_id and tenant id. If both are right, an administrator of the tenant consents at {consent}",
	},
	7000229: { // *
		sentence: "Application {app} has no service principal in tenant {tenant}.",
		remedy:   "An administrator of the tenant adds it by consenting at {consent}",
	},
	7000112: {
		sentence: "Application {app} is disabled in tenant {tenant}.",
		remedy:   "An administrator enables it: Enterprise applications, Properties, \"Enabled for users to sign in\".",
	},
	90002: {
		sentence: "There is no tenant {tenant} in this cloud.",
		remedy:   "Check the tenant id, and that the tenant's cloud (commercial, gcc, gcc-high, dod) is the configured one.",
	},
	90038: {
		sentence: "Tenant {tenant} belongs to another national cloud than the one that was asked.",
		remedy:   "Correct the tenant's cloud in the configuration.",
	},

	// The audience and consent.
	500011: {
		sentence: "The API {audience} is not known in tenant {tenant}.",
		remedy:   "Check that the tenant has the Defender product and that the audience is right for its cloud; then an administrator consents at {consent}",
	},
	50001: {
		sentence: "The API {audience} does not exist or is disabled in tenant {tenant}.",
		remedy:   "Check the audience for the tenant's cloud, and that the tenant has the Defender product.",
	},
	650052: {
		sentence: "Tenant {tenant} has not subscribed to the API {audience}.",
		remedy:   "Check that the tenant has the Defender product, or take the service out of its configuration.",
	},
	65001: {
		sentence: "Nobody has consented to application {app} in tenant {tenant}.",
		remedy:   "An administrator of the tenant consents at {consent}",
	},
	70011: {
		sentence: "Entra ID does not accept the scope {audience}/.default.",
		remedy:   "Check the audience in the cloud's configuration: it is a URI without /.default.",
	},
	1002012: { // *
		sentence: "Entra ID does not accept the scope {audience}/.default for an application.",
		remedy:   "Check the audience in the cloud's configuration: it is a URI without /.default.",
	},
	901002: {
		sentence: "This endpoint of Entra ID does not take resource=.",
		remedy:   "Set token_version: v2.",
	},
	900144: {
		sentence: "Entra ID misses a parameter in the request.",
		remedy:   "Check client_id, the secret and token_version, and that no egress proxy changes the request.",
	},

	// Policies of the tenant.
	53003: {
		sentence: "A Conditional Access policy of tenant {tenant} refuses application {app} a token.",
		remedy:   "An administrator looks at the sign-in log of service principals for the policy, and lets the application or this network pass.",
	},

	// Assertions and clocks.
	700024: { // *
		sentence: "The client assertion was outside its time when Entra ID read it.",
		remedy:   "Set this machine's clock (NTP).{clock}",
	},
	700027: {
		sentence: "Entra ID could not verify the client assertion of application {app}.",
		remedy:   "Upload the certificate that signs it under App registrations, Certificates & secrets, and set this machine's clock (NTP).{clock}",
	},

	// Users.
	50034: {
		sentence: "The user does not exist in tenant {tenant}.",
		remedy:   "Check the user name and the tenant.",
	},
	50126: {
		sentence: "The user name or the password is wrong.",
		remedy:   "Set the right password. Do not try often: Entra ID locks the account.",
	},
	50053: {
		sentence: "The account is locked after too many wrong passwords, or this network's address is blocked.",
		remedy:   "Set the right password and wait; an administrator sees the reason in the sign-in log.",
	},
	50055: {
		sentence: "The user's password has expired.",
		remedy:   "Change the password, and set the new one.",
	},
	50057: {
		sentence: "The user's account is disabled.",
		remedy:   "An administrator enables it, or another account is configured.",
	},
	50076: {
		sentence: "Tenant {tenant} asks the user for multifactor authentication, which a stored password cannot give.",
		remedy:   "Use a sign-in by a person, or an application instead of a user.",
	},
	50079: {
		sentence: "Tenant {tenant} asks the user to register for multifactor authentication.",
		remedy:   "The user signs in once in a browser and registers; or use an application instead of a user.",
	},
	50173: {
		sentence: "The user's sign-in was revoked.",
		remedy:   "The user signs in again.",
	},
	700082: {
		sentence: "The user's sign-in has expired, because it was not used for too long.",
		remedy:   "The user signs in again.",
	},

	// What passes.
	50196: {
		sentence:  "Entra ID holds back application {app}, because it asked for the same token too often.",
		remedy:    "Wait some minutes. Other programs with the same application count too.",
		transient: true,
	},
	90055: {sentence: "Entra ID gets too many requests for tenant {tenant}.", remedy: "Wait; the proxy tries again.", transient: true},
	50033: {sentence: "Entra ID has a passing fault.", remedy: "Wait; the proxy tries again.", transient: true},
	90006: {sentence: "Entra ID is unavailable for a while.", remedy: "Wait; the proxy tries again.", transient: true},
	90012: {sentence: "Entra ID ran out of time.", remedy: "Wait; the proxy tries again.", transient: true},
	90024: {sentence: "Entra ID has a passing fault.", remedy: "Wait; the proxy tries again.", transient: true},
	90033: {sentence: "Entra ID's directory is unavailable for a while.", remedy: "Wait; the proxy tries again.", transient: true},
}

// words fills the advice in for an account.
func (a advice) words(acc Account, audience string, skew time.Duration) (sentence, remedy string) {
	clock := ""
	if notable(skew) {
		clock = " " + skewSentence(skew)
	}
	r := strings.NewReplacer(
		"{app}", acc.ClientID,
		"{tenant}", string(acc.Tenant),
		"{audience}", audience,
		"{consent}", acc.consentURL(),
		"{clock}", clock,
	)
	return r.Replace(a.sentence), r.Replace(a.remedy)
}

var codePattern = regexp.MustCompile(`\bAADSTS([0-9]{4,9})\b`)

// aadsts finds the code in Entra's error_description, or gives 0.
func aadsts(description string) int {
	m := codePattern.FindStringSubmatch(description)
	if m == nil {
		return 0
	}
	n, _ := strconv.Atoi(m[1]) // nine digits fit
	return n
}

// meaning is the description without what follows the sentence: the ids of the
// trace, which are of use to nobody but Microsoft's support, and the time.
func meaning(description string) string {
	for _, mark := range []string{"\r", "\n", " Trace ID:"} {
		description, _, _ = strings.Cut(description, mark)
	}
	return description
}

// notable reports whether clocks differ enough to say so. Entra accepts five
// minutes; a minute is already a fault of the machine.
func notable(skew time.Duration) bool { return skew.Abs() > time.Minute }

// skewSentence tells how this machine's clock stands to Entra's. A positive
// skew is a clock that is behind.
func skewSentence(skew time.Duration) string {
	word := "behind"
	if skew < 0 {
		word = "ahead of"
	}
	return "This machine's clock is " + skew.Abs().Round(time.Second).String() + " " + word + " Entra ID's."
}
