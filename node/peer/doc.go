// Package peer is the transport between nodes: everything that crosses the peer
// port (7401). It carries messages and decides nothing. The text for operators and
// for writers of tools is docs/PROTOCOL-PEER.md.
//
// It owns the listener, the greeting that says what a connection is and who is at
// its ends, the peer stream that carries the appends of all facets and everything
// an owner, a replica and the placement leader ask one another, the streams
// snapshots go by, and the connections Raft borrows. It refuses to know a rule of
// OWNERSHIP.md: it promises nothing, counts no acknowledgement, grants no lease,
// keeps no log and retries no append. Package node opens one Transport, gives it
// the handlers that serve other nodes, and asks other nodes through Peer.
//
// Between two nodes there is one peer stream for each direction of asking: a node
// dials those it has questions for, and the answers come back on the same
// connection. An order there is only within one stream.
//
// Concurrency: every method of Transport, Peer, Caller, EntryWriter and RaftStream
// may be called from any goroutine, except that one EntryWriter belongs to one
// Fetch. What calls back, and from where, is said at Handler, Inspector, Placement,
// Orders, Installer and Acks. Every goroutine ends before Transport.Close returns, and no callback
// may call Close.
//
// # Greeting
//
// The dialler sends 196 bytes, the acceptor answers with as many; both have this
// layout, in every version, for ever. Numbers are big-endian everywhere.
//
//	offset size
//	  0     8   "FACETP\r\n"
//	  8     1   kind: 1 peer stream, 2 Raft, 3 snapshot, 4 question
//	  9     1   verdict; zero from the dialler
//	 10     1   lowest protocol version spoken
//	 11     1   highest one
//	 12     1   version chosen: the highest both speak; zero from the dialler
//	 13     1   zero
//	 14     2   length of what follows; only for kind 4
//	 16    16   cluster id, zero for none
//	 32    16   boot id
//	 48    16   store id
//	 64     1   length of the node id
//	 65    63   node id, padded with zeros
//	128     1   length of the id of the node the dialler wants, zero for any
//	129    63   that id, padded with zeros
//	192     4   CRC-32C of the 192 bytes before
//
// Verdicts: 0 welcome, 1 another cluster, 2 no version in common, 3 another node
// than was wanted, 4 the certificate is not that node's, 5 kind not served, 6 too
// many connections, 7 shutting down, 8 no answer. After any but 0 the acceptor
// closes. Kind 4 is welcome from any cluster and version: the dialler's greeting
// may be followed by a question of at most 16 KiB and its CRC-32C, the acceptor's
// by the answer likewise (with verdict 8, by a text), and the connection is over.
// After the greeting of kind 2 the connection is Raft's; of kinds 1 and 3, frames
// follow.
//
// # Frames
//
// A frame has the header of package wire: 4 bytes CRC-32C of the rest, 4 bytes
// length of the body, 4 bytes id, type, flags, two zero bytes. Types below 32 are
// package wire's, of which ping (7) and pong (8) are used.
//
//	type       from      id    body
//	32 APPEND  dialler   0     1 to 512 items
//	33 ACK     acceptor  0     1 to 512 items
//	34 PREPARE dialler   call  1 to 512 times: 16 incarnation, 8 session epoch
//	35 PROMISE acceptor  call  items, in any order and number of frames: 2 number of
//	                           the item asked for, outcome; if it is 0: 32 end of the
//	                           log, 32 position of the base, 4 its size in pages,
//	                           8 commit known, 1 health
//	36 FETCH   dialler   call  16 incarnation, 8 session epoch, 8 from seq, 8 to seq
//	                           or zero, 4 bound on the bytes of the answer
//	37 ENTRIES acceptor  call  entries in order: uvarint length, encoded commit.
//	                           With flag 1, the last: 1 byte whether there are more,
//	                           outcome
//	38 CHECK   dialler   call  as PREPARE
//	39 CHECKED acceptor  call  for each: 1 for yes, 0 for no
//	40 RENEW   dialler   call  8 placement index applied, 8 stamp
//	41 GRANT   acceptor  call  outcome, 8 stamp, 8 TTL in nanoseconds, 8 placement
//	                           index to apply first, 8 clock of the granter when
//	                           RENEW was received, 8 when it was answered
//	42 PROPOSE dialler   call  1 to 512 commands: uvarint length, bytes
//	43 RESULT  acceptor  call  items, in any order and number of frames: 2 number of
//	                           the command, outcome; if it is 0: uvarint length, bytes
//	44 ORDER   dialler   call  1 kind (1 move, 2 wake, 3 warm, 4 tell, 5 heal), 16
//	                           incarnation, 8 epoch of the row, 1 length, id of the
//	                           owner wanted; 1 number of members wanted, each 1
//	                           length, node id, 16 store id, sorted by node. A move
//	                           wants at least one of them, the others nothing
//	45 DONE    acceptor  call  outcome; 2 length, text of at most 256 bytes, none if the
//	                           outcome is 0
//	46 INSPECT dialler   call  as PREPARE; nothing is promised
//	47 COPY    acceptor  call  as PROMISE
//	52 COMPARE dialler   call  1 kind: 1 digests, nothing follows; 2 copies, 1 to 512 times
//	                           16 incarnation; 3 outvoted, 16 incarnation, 32 position
//	53 COMPARED acceptor call  outcome; if it is 0, to 1: 256 times 16 digest; to 2: for
//	                           each in order 1 state (0 none, else 1 + health), 32
//	                           position, zero if there is none
//	54 USE     dialler   call  1 length, tenant
//	55 USED    acceptor  call  outcome; if it is 0: 8 placement index applied, 1 freeze (0 no,
//	                           1 writes, 2 all), and 8 each: facets owned, of them open,
//	                           their bytes, bytes they may grow by without asking, memory,
//	                           requests under way, and of the last second requests,
//	                           requests refused, rows
//
// An id of a call is used by one call at a time. Sessions are of the boot in the
// greeting: the one who asks is the one who owns. An uvarint has its shortest form.
//
// An item of APPEND:
//
//	1 byte   flags: 1 named, 2 follows, 4 barrier, 8 older epoch, 16 no entry
//	uvarint  slot, below 4096
//	16, 8    incarnation and session epoch; if named
//	8        epoch of the entry; if older, else it is the session's
//	8, 8, 16 seq, epoch of the entry before, checksum before; unless it follows
//	uvarint  database size in pages
//	uvarint  seq minus what is committed, zero when that is more
//	16       checksum after; unless a barrier, for which it is the one before
//	uvarint  length of the pages, and the pages; unless a barrier
//
//	with no entry, after slot and name: 8, 8  epoch and seq of what is committed
//
// A slot remembers the facet and session that were last named with it, and the
// position of the last entry sent with it since: "follows" means that the entry's
// predecessor is that one. Memories begin empty, one for each direction of each
// connection.
//
// An item of ACK:
//
//	2 bytes  slot, plus 32768 if named
//	16, 8    incarnation and session epoch; if named
//	uvarint  seq
//	outcome
//
// Outcome: one byte, then
//
//	 0 done           1 epoch: 8 epoch promised   2 gap: 32 end of the log
//	 3 diverged       4 full                      5 unknown facet
//	 6 other boot     7 deleted                   8 damaged
//	 9 compacted     10 busy                     11 open
//	12 not known     13 closed                   14 refused
//	15 not the leader: 1 length, id of the leader
//	16 outcome unknown
//	17 other: 2 length, text of at most 256 bytes
//
// # Snapshots
//
// One connection carries one snapshot, or what is left of one.
//
//	48 OFFER     dialler   16 incarnation, 8 session epoch, 32 position, 4 pages
//	49 RESUME    acceptor  outcome, 4 pages it has already
//	50 PAGES     dialler   4 pages before these, 1 to 15 pages of 4096 bytes
//	51 INSTALLED acceptor  outcome, 32 base of the facet
//
// RESUME with an outcome but 0 is the end; with 10 it may be tried again.
// INSTALLED may come before all pages are sent: the rest is not needed. A sender
// whose connection broke offers the same snapshot again and goes on where RESUME
// says.
package peer
