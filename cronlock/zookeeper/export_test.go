package zookeeper

// SessionID is the session's, for tests that end it.
func (c *Client) SessionID() int64 { return c.conn.SessionID() }
