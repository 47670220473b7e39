package config

// Credential is an application of Entra ID and its proof: exactly one of
// ClientSecret, Certificate, FederatedToken and ManagedIdentity, or User, alone
// (a public client) or beside ClientSecret or Certificate (a confidential one).
type Credential struct {
	// The application's id, a GUID. Left out for a managed identity that asks for
	// its own tokens.
	ClientID string `yaml:"client_id" kind:"guid"`

	// The application's secret: the name of an environment variable, a file, or a
	// secret in Azure Key Vault. Never the secret itself.
	ClientSecret Secret `yaml:"client_secret" kind:"vaulted"`

	// A second secret, tried when Entra ID rejects the first, so that both may
	// overlap while they are rotated. Only with client_secret. Default none.
	NextClientSecret Secret `yaml:"next_client_secret" kind:"vaulted"`

	// A certificate of the application, whose key signs an assertion for each
	// request of a token.
	Certificate *Certificate `yaml:"certificate"`

	// A token of another issuer that the application trusts: workload identity
	// federation.
	FederatedToken *FederatedToken `yaml:"federated_token"`

	// The identity that Azure gives this machine.
	ManagedIdentity *ManagedIdentity `yaml:"managed_identity"`

	// A user who signs in: alone for a public client, or beside client_secret or
	// certificate for a confidential one. Its tokens carry delegated permissions.
	User *User `yaml:"user"`

	// The token endpoint's version: v1 sends resource=, v2 sends scope=. Default
	// v2. A user's tokens are v2 but with the password flow.
	TokenVersion TokenVersion `yaml:"token_version" default:"v2" oneof:"v1 v2"`

	// Whether tokens are checked against the keys that the authority publishes.
	// Default false. Microsoft signs Graph's tokens so that only Graph can verify
	// them: with true, the tenant cannot use Graph.
	VerifySignature bool `yaml:"verify_signature" default:"false"`
}

// Certificate is an X.509 certificate with its RSA key.
type Certificate struct {
	// The certificate, PEM or PKCS#12; it may hold the key too.
	File string `yaml:"file" kind:"path" required:"a file, PEM or PKCS#12"`

	// The key of the certificate, a PEM file that others cannot read. Default: the
	// key is in file.
	KeyFile string `yaml:"key_file" kind:"path"`

	// The password of the key: the name of an environment variable, or a file.
	// Default none.
	Password Secret `yaml:"password"`
}

// FederatedToken is a token of another issuer.
type FederatedToken struct {
	// The file that the platform keeps the token in. It is read for each request
	// of a token.
	File string `yaml:"file" kind:"path" required:"the file that the platform keeps the token in"`
}

// ManagedIdentity is an identity that Azure gives a machine. The zero value is
// the system-assigned one, asking for its own tokens.
type ManagedIdentity struct {
	// The id of a user-assigned identity, a GUID. Default: the machine's
	// system-assigned identity.
	ClientID string `yaml:"client_id" kind:"guid"`

	// Whether the identity's token is the proof of the application client_id, in
	// any tenant where that application is known. Default false: the identity asks
	// for its own tokens.
	AsAssertion bool `yaml:"as_assertion" default:"false"`
}

// The flows by which a user signs in.
const (
	FlowDeviceCode        = "device_code"
	FlowAuthorizationCode = "authorization_code"
	FlowPassword          = "password"
)

// User is a user who signs in. device_code and authorization_code keep a refresh
// token, which the command login fetches; password sends the password each time.
type User struct {
	// How the user signs in: device_code, authorization_code (with a browser on
	// this machine), or password, which sign-in with a second factor refuses.
	Flow string `yaml:"flow" oneof:"device_code authorization_code password" required:"device_code, authorization_code or password"`

	// The user's name, such as analyst@contoso.com. Required for password; with the
	// others a sign-in of anybody else is refused, default none.
	Username string `yaml:"username"`

	// The user's password, for the flow password alone: the name of an environment
	// variable, or a file.
	Password Secret `yaml:"password"`

	// The file that keeps the refresh token, encrypted. Each tenant has its own.
	// Not for the flow password, required for the others.
	TokenStore string `yaml:"token_store" kind:"path"`

	// The file of the key that encrypts token_store, best on another disk; the
	// command login makes it. Default: a key in the operating system's keyring.
	KeyFile string `yaml:"key_file" kind:"path"`
}

// TokenVersion is the version of Entra's token endpoint.
type TokenVersion string

// The versions of Entra's token endpoint.
const (
	TokenV1 TokenVersion = "v1" // resource=
	TokenV2 TokenVersion = "v2" // scope=
)
