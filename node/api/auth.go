package api

import (
	"crypto/sha256"
	"crypto/subtle"
	"strconv"
	"strings"

	"github.com/crossroads-mesh/crossroads/node/config"
	"github.com/crossroads-mesh/crossroads/registry/names"
)

// The headers by which an application says for whom it asks.
const (
	HeaderUser      = "X-Crossroads-User"
	HeaderAuthLevel = "X-Crossroads-Auth-Level"
	HeaderChannel   = "X-Crossroads-Channel"
)

// application is a configured one, with what it has under way.
type application struct {
	config.Application
	hash  [32]byte
	slots chan struct{}
}

// user is on whose behalf a request is made.
type user struct {
	id       names.UserID
	level    uint32
	channel  string
	asserted bool // a human, named by the application; else the application itself
}

// authenticate finds the application by its token, and whom it asks for.
func (s *Server) authenticate(q *request, need access) error {
	scheme, token, _ := strings.Cut(q.Header.Get("Authorization"), " ")
	if !strings.EqualFold(scheme, "Bearer") || token == "" {
		return problem(CodeUnauthenticated, "Authorization", "Send the application's token as \"Authorization: Bearer TOKEN\".")
	}
	hash := sha256.Sum256([]byte(strings.TrimSpace(token)))
	var found *application
	for _, a := range *s.apps.Load() { // all of them: how long it takes tells nothing
		if subtle.ConstantTimeCompare(a.hash[:], hash[:]) == 1 {
			found = a
		}
	}
	if found == nil {
		return problem(CodeUnauthenticated, "Authorization", "Compare the token's SHA-256 with api.applications in the node's configuration.")
	}
	q.app = found
	if need == admin && !found.Admin {
		return problem(CodeForbidden, "Authorization", "This takes an application with admin: true in the node's configuration.")
	}
	if need == operator && !found.Operator {
		return problem(CodeForbidden, "Authorization", "This takes an application with operator: true in the node's configuration.")
	}
	return q.identify()
}

// identify reads for whom the application asks.
func (q *request) identify() error {
	q.user = user{id: names.UserID(q.app.Name), level: q.app.AuthLevel, channel: "api"}
	if u := names.UserID(q.Header.Get(HeaderUser)); u != "" {
		if !q.app.UsersAsserted {
			return problem(CodeForbidden, HeaderUser, "This application may not assert users: leave the header out, or set users_asserted: true in the node's configuration.")
		}
		if u.Validate() != nil {
			return problem(CodeMalformed, HeaderUser, "Use at most 128 printable ASCII characters.")
		}
		q.user.id, q.user.asserted = u, true
	}
	if l := q.Header.Get(HeaderAuthLevel); l != "" {
		n, err := strconv.ParseUint(l, 10, 8)
		if err != nil {
			return problem(CodeMalformed, HeaderAuthLevel, "Write a number from 0 to 4.")
		}
		if uint32(n) > q.app.AuthLevel {
			return problem(CodeForbidden, HeaderAuthLevel, "This application may not assert so high a level: see auth_level in the node's configuration.")
		}
		q.user.level = uint32(n)
	}
	if c := q.Header.Get(HeaderChannel); c != "" {
		if len(c) > 16 || names.NodeName(c).Validate() != nil {
			return problem(CodeMalformed, HeaderChannel, "Use at most 16 lower case letters, digits and dashes.")
		}
		q.user.channel = c
	}
	return nil
}
