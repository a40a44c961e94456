package api

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/quirelog/quire/protocol"
	"github.com/quirelog/quire/proxy"
)

// DescribeUserScramCredentials: v0
//
// Nobody has credentials (AlterUserScramCredentials). Null and empty lists
// ask for all users, who are none; one that is named is not found (ScramImage).

func (h *Handlers) describeUserScramCredentials(r *proxy.Request, q *kmsg.DescribeUserSCRAMCredentialsRequest) {
	resp := q.ResponseKind().(*kmsg.DescribeUserSCRAMCredentialsResponse)
	var users scramUsers
	for i := range q.Users {
		users.add(q.Users[i].Name, protocol.ResourceNotFound)
	}
	for i, name := range users.names {
		out := kmsg.NewDescribeUserSCRAMCredentialsResponseResult()
		out.User, out.ErrorCode, out.ErrorMessage = name, int16(users.codes[i]), message(users.codes[i])
		resp.Results = append(resp.Results, out)
	}
	h.respond(r, resp)
}

// scramUsers are users in the order in which a request names them, each with
// what came of it.
type scramUsers struct {
	place map[string]int
	names []string
	codes []protocol.Code
}

// add takes a user. One that is named again is a duplicate.
func (u *scramUsers) add(name string, code protocol.Code) {
	if u.place == nil {
		u.place = make(map[string]int)
	}
	at, again := u.place[name]
	if again {
		u.codes[at] = protocol.DuplicateResource
		return
	}
	u.place[name] = len(u.names)
	u.names, u.codes = append(u.names, name), append(u.codes, code)
}
