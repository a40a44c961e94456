package api

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/proxy"
)

// AlterUserScramCredentials: v0
//
// No listener asks for SASL, so that no credentials are kept: sound ones are refused with
// UNSUPPORTED_VERSION, the code of a Kafka cluster that has no SCRAM yet, and there are
// none to delete. What is not sound is refused as in Kafka (ScramControlManager). Each
// user is answered once.

// The SCRAM mechanisms, and how many iterations one may have (ScramMechanism.java).
const (
	scramSHA256        = 1
	scramSHA512        = 2
	minScramIterations = 4096
	maxScramIterations = 16384
)

func (h *Handlers) alterUserScramCredentials(r *proxy.Request, q *kmsg.AlterUserSCRAMCredentialsRequest) {
	resp := q.ResponseKind().(*kmsg.AlterUserSCRAMCredentialsResponse)
	var users scramUsers
	for i := range q.Deletions {
		d := &q.Deletions[i]
		code := checkScramUser(d.Name, d.Mechanism)
		if code == protocol.None {
			code = protocol.ResourceNotFound
		}
		users.add(d.Name, code)
	}
	for i := range q.Upsertions {
		u := &q.Upsertions[i]
		code := checkScramUser(u.Name, u.Mechanism)
		switch {
		case code != protocol.None:
		case u.Iterations < minScramIterations || u.Iterations > maxScramIterations:
			code = protocol.UnacceptableCredential
		default:
			code = protocol.UnsupportedVersion
		}
		users.add(u.Name, code)
	}
	for i, name := range users.names {
		out := kmsg.NewAlterUserSCRAMCredentialsResponseResult()
		out.User, out.ErrorCode, out.ErrorMessage = name, int16(users.codes[i]), message(users.codes[i])
		if users.codes[i] == protocol.UnsupportedVersion {
			out.ErrorMessage = noScram
		}
		resp.Results = append(resp.Results, out)
	}
	h.respond(r, resp)
}

// noScram is the text of a refusal of what is sound.
var noScram = kmsg.StringPtr("no listener asks for SASL, so that SCRAM credentials are not kept")

func checkScramUser(name string, mechanism int8) protocol.Code {
	switch {
	case name == "":
		return protocol.UnacceptableCredential
	case mechanism != scramSHA256 && mechanism != scramSHA512:
		return protocol.UnsupportedSASLMechanism
	}
	return protocol.None
}
