package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// answer is what somebody said over HTTP: a status, and JSON.
type answer struct {
	Status int            `json:"status"`
	Body   map[string]any `json:"body"`
}

// token is the access token in it, or nothing.
func (a answer) token() string {
	token, _ := a.Body["access_token"].(string)
	return token
}

// show is the answer with the claims of its token in place of the token.
func (a answer) show() answer {
	shown := answer{a.Status, map[string]any{}}
	for name, value := range a.Body {
		shown.Body[name] = value
	}
	if token := a.token(); token != "" {
		delete(shown.Body, "access_token")
		shown.Body["claims"] = claims(token)
	}
	return shown
}

// claims are those of a JWT, unverified: to be shown.
func claims(token string) (claims map[string]any) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return nil
	}
	decoded, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(decoded, &claims) != nil {
		return nil
	}
	return claims
}

// service is the token service, called with the projected token of the pod.
type service struct {
	url        string
	credential string // a file, which the kubelet renews
	http       *http.Client
}

// tokenService is the one that the environment names.
func tokenService() *service {
	authority, err := os.ReadFile(os.Getenv("COUNTERSIGN_CA"))
	if err != nil {
		log.Fatal(err)
	}
	return newService(authority, 40*time.Second)
}

func newService(authority []byte, timeout time.Duration) *service {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(authority) {
		log.Fatal("COUNTERSIGN_CA has no certificate")
	}
	return &service{
		url:        os.Getenv("COUNTERSIGN_URL"),
		credential: os.Getenv("COUNTERSIGN_CREDENTIAL"),
		http: &http.Client{
			Timeout: timeout,
			// A connection each time: so each request may meet another replica, as with many clients.
			Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: true},
		},
	}
}

// asAgent sends a form by which the agent proves itself.
func (s *service) asAgent(path string, form url.Values) (answer, error) {
	credential, err := os.ReadFile(s.credential)
	if err != nil {
		return answer{}, err
	}
	form.Set("client_assertion_type", assertionType)
	form.Set("client_assertion", string(bytes.TrimSpace(credential)))
	return s.send(path, form, "")
}

// asServer sends the token that a resource server was shown.
func (s *service) asServer(path, token string) (answer, error) {
	credential, err := os.ReadFile(s.credential)
	if err != nil {
		return answer{}, err
	}
	return s.send(path, url.Values{"token": {token}}, string(bytes.TrimSpace(credential)))
}

func (s *service) send(path string, form url.Values, bearer string) (answer, error) {
	request, err := http.NewRequest("POST", s.url+path, strings.NewReader(form.Encode()))
	if err != nil {
		return answer{}, err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if bearer != "" {
		request.Header.Set("Authorization", "Bearer "+bearer)
	}
	return roundTrip(s.http, request)
}

// roundTrip sends a request and reads JSON.
func roundTrip(client *http.Client, request *http.Request) (answer, error) {
	response, err := client.Do(request)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return answer{}, err
	}
	said := answer{Status: response.StatusCode}
	if len(text) > 0 && json.Unmarshal(text, &said.Body) != nil {
		return answer{}, fmt.Errorf("%s answered %d and no JSON", request.URL.Path, response.StatusCode)
	}
	return said, nil
}

// present calls another of these programs with a token in the header, and returns what came of it there.
func present(method, address, token string) (answer, error) {
	if token == "" {
		return answer{}, errors.New("there is no token to present")
	}
	request, err := http.NewRequest(method, address, nil)
	if err != nil {
		return answer{}, err
	}
	request.Header.Set("Authorization", "Bearer "+token)
	said, err := roundTrip(&http.Client{Timeout: 40 * time.Second}, request)
	if body, ok := said.Body["body"].(map[string]any); ok {
		status, _ := said.Body["status"].(float64)
		said = answer{int(status), body}
	}
	return said, err
}

// reply writes what came of something.
func reply(w http.ResponseWriter, said answer, err error) {
	w.Header().Set("Content-Type", "application/json")
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		json.NewEncoder(w).Encode(map[string]string{"error": err.Error()})
		return
	}
	json.NewEncoder(w).Encode(said.show())
}
