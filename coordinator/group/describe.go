package group

// Description is DescribeGroups' view of a classic group.
type Description struct {
	State        State
	ProtocolType string
	ProtocolName string // "" unless Stable
	Members      []MemberDescription
}

// MemberDescription is one member; Metadata and Assignment are nil unless the
// group is Stable.
type MemberDescription struct {
	MemberID, InstanceID string
	ClientID, ClientHost string
	Metadata, Assignment []byte
}

// Describe returns ErrGroupNotFound for a consumer group and one being deleted;
// DescribeGroups before v6 answers state Dead and no error in its place.
func (g *Group) Describe() (*Description, error) {
	if g.consumer != nil || g.classic.state == Dead {
		return nil, ErrGroupNotFound
	}
	return g.classic.describe(), nil
}
