// Encrypted chat through a running server with mautrix-go and goolm: another crypto stack than that of matrix-rust-sdk
// and its descendants. Usage: go_chat URL (go_chat.py starts the server).
package main

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/crypto/backup"
	"maunium.net/go/mautrix/crypto/signatures"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

const limit = 60 * time.Second

var ctx, stop = context.WithTimeout(context.Background(), 3*limit)

// must ends the program where something failed.
func must(what string, err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "go_chat:", what+":", err)
		os.Exit(1)
	}
}

// device is a client with its keys, and what its sync has shown.
type device struct {
	*mautrix.Client
	keys    *crypto.OlmMachine
	lock    sync.Mutex
	texts   map[string]bool
	invited map[id.RoomID]bool
}

func (d *device) shown(check func() bool) bool {
	d.lock.Lock()
	defer d.lock.Unlock()
	return check()
}

// until waits for what a sync is to show.
func (d *device) until(what string, check func() bool) {
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if d.shown(check) {
			return
		}
	}
	must(d.UserID.String(), errors.New("never saw "+what))
}

func password(name string) string { return name + "-long-password" }

// start makes a device of a new account, or a further one of an account.
func start(url, name string, isNew bool) *device {
	client, err := mautrix.NewClient(url, "", "")
	must("a client", err)
	if isNew {
		made, err := client.RegisterDummy(ctx, &mautrix.ReqRegister[any]{Username: name, Password: password(name)})
		must("registration", err)
		client.UserID, client.AccessToken, client.DeviceID = made.UserID, made.AccessToken, made.DeviceID
	} else {
		who := mautrix.UserIdentifier{Type: mautrix.IdentifierTypeUser, User: name}
		login := &mautrix.ReqLogin{
			Type: mautrix.AuthTypePassword, Identifier: who, Password: password(name), StoreCredentials: true,
		}
		_, err := client.Login(ctx, login)
		must("login", err)
	}
	client.StateStore = mautrix.NewMemoryStateStore()
	stores := client.StateStore.(crypto.StateStore)
	keys := crypto.NewOlmMachine(client, nil, crypto.NewMemoryStore(nil), stores)
	must("keys", keys.Load(ctx))
	must("keys", keys.ShareKeys(ctx, -1))
	d := &device{Client: client, keys: keys, texts: map[string]bool{}, invited: map[id.RoomID]bool{}}
	d.listen()
	go func() { must("sync", client.SyncWithContext(ctx)) }()
	return d
}

func (d *device) listen() {
	syncer := d.Syncer.(*mautrix.DefaultSyncer)
	syncer.OnSync(d.keys.ProcessSyncResponse)
	syncer.OnEvent(func(ctx context.Context, seen *event.Event) { mautrix.UpdateStateStore(ctx, d.StateStore, seen) })
	syncer.OnEventType(event.StateMember, func(ctx context.Context, seen *event.Event) {
		d.keys.HandleMemberEvent(ctx, seen)
		if seen.GetStateKey() == d.UserID.String() && seen.Content.AsMember().Membership == event.MembershipInvite {
			d.shown(func() bool { d.invited[seen.RoomID] = true; return true })
		}
	})
	syncer.OnEventType(event.EventEncrypted, func(ctx context.Context, seen *event.Event) { go d.read(seen) })
}

// read decrypts an event, as soon as its key is there.
func (d *device) read(seen *event.Event) {
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		plain, err := d.keys.DecryptMegolmEvent(ctx, seen)
		if err != nil {
			continue
		}
		_ = plain.Content.ParseRaw(plain.Type)
		if message, ok := plain.Content.Parsed.(*event.MessageEventContent); ok {
			d.shown(func() bool { d.texts[message.Body] = true; return true })
		}
		return
	}
}

// say encrypts a message for all devices of the room's members, and waits until the readers have read it.
func (d *device) say(room id.RoomID, body string, readers ...*device) {
	content := &event.MessageEventContent{MsgType: event.MsgText, Body: body}
	sealed, err := d.keys.EncryptMegolmEvent(ctx, room, event.EventMessage, content)
	if crypto.IsShareError(err) {
		members, failed := d.JoinedMembers(ctx, room)
		must("members", failed)
		var users []id.UserID
		for user := range members.Joined {
			users = append(users, user)
		}
		must("sharing the room's key", d.keys.ShareGroupSession(ctx, room, users))
		sealed, err = d.keys.EncryptMegolmEvent(ctx, room, event.EventMessage, content)
	}
	must("encryption", err)
	_, err = d.SendMessageEvent(ctx, room, event.EventEncrypted, sealed)
	must("sending", err)
	for _, reader := range readers {
		reader.until(body, func() bool { return reader.texts[body] })
	}
}

// knows waits until a device knows that a room is encrypted and who is in it.
func (d *device) knows(room id.RoomID, user id.UserID) {
	d.until("the room", func() bool {
		encrypted, _ := d.StateStore.IsEncrypted(ctx, room)
		return encrypted && d.StateStore.IsInRoom(ctx, room, user)
	})
}

func makeRoom(alice, bob *device) id.RoomID {
	encryption := &event.Event{Type: event.StateEncryption, Content: event.Content{
		Parsed: &event.EncryptionEventContent{Algorithm: id.AlgorithmMegolmV1},
	}}
	made, err := alice.CreateRoom(ctx, &mautrix.ReqCreateRoom{
		Preset: "private_chat", Name: "Secret tea", Invite: []id.UserID{bob.UserID}, InitialState: []*event.Event{encryption},
	})
	must("the room", err)
	bob.until("the invitation", func() bool { return bob.invited[made.RoomID] })
	_, err = bob.JoinRoomByID(ctx, made.RoomID)
	must("joining", err)
	for _, one := range []*device{alice, bob} {
		one.knows(made.RoomID, bob.UserID)
	}
	return made.RoomID
}

// crossSign makes cross-signing keys with secret storage; gives the recovery key.
func (d *device) crossSign(name string) string {
	recovery, _, err := d.keys.GenerateAndUploadCrossSigningKeysWithPassword(ctx, password(name), "")
	must("cross-signing", err)
	must("signing the device", d.keys.SignOwnDevice(ctx, d.keys.OwnIdentity()))
	must("signing the key", d.keys.SignOwnMasterKey(ctx))
	return recovery
}

// trust signs another user's key, after which he counts as verified.
func (d *device) trust(other *device) {
	_, err := d.keys.FetchKeys(ctx, []id.UserID{d.UserID, other.UserID}, true)
	must("keys", err)
	public, err := d.keys.GetCrossSigningPublicKeys(ctx, other.UserID)
	must("cross-signing keys", err)
	must("signing a user", d.keys.SignUser(ctx, other.UserID, public.MasterKey))
	trusted, err := d.keys.IsUserTrusted(ctx, other.UserID)
	must("trust", err)
	if !trusted {
		must("trust", errors.New("a signed user is not trusted"))
	}
}

// backUp keeps a session's key on the server and reads it again.
func (d *device) backUp(room id.RoomID) {
	key, err := backup.NewMegolmBackupKey()
	must("a backup key", err)
	auth := backup.MegolmAuthData{PublicKey: id.Ed25519(base64.RawStdEncoding.EncodeToString(key.PublicKey().Bytes()))}
	signature, err := d.keys.GetAccount().SignJSON(auth)
	must("a signature", err)
	auth.Signatures = signatures.NewSingleSignature(d.UserID, id.KeyAlgorithmEd25519, d.DeviceID.String(), signature)
	made, err := d.CreateKeyBackupVersion(ctx, &mautrix.ReqRoomKeysVersionCreate[backup.MegolmAuthData]{
		Algorithm: id.KeyBackupAlgorithmMegolmBackupV1, AuthData: auth,
	})
	must("a backup", err)
	sealed, err := backup.EncryptSessionData(key, backup.MegolmSessionData{
		Algorithm: id.AlgorithmMegolmV1, SessionKey: "the session's key",
	})
	must("encryption", err)
	text, err := json.Marshal(sealed)
	must("JSON", err)
	data := &mautrix.ReqKeyBackupData{IsVerified: true, SessionData: text}
	_, err = d.PutKeysInBackupForRoomAndSession(ctx, made.Version, room, "session", data)
	must("backing up", err)
	all, err := d.GetKeyBackup(ctx, made.Version)
	must("reading the backup", err)
	kept := all.Rooms[room].Sessions["session"].SessionData
	opened, err := kept.Decrypt(key)
	must("decryption", err)
	if opened.SessionKey != "the session's key" {
		must("the backup", fmt.Errorf("it has %q", opened.SessionKey))
	}
	latest, err := d.GetKeyBackupLatestVersion(ctx)
	must("the latest backup", err)
	if latest.Version != made.Version || latest.Count != 1 {
		must("the latest backup", fmt.Errorf("it is %v with %d keys", latest.Version, latest.Count))
	}
}

func main() {
	defer stop()
	alice, bob := start(os.Args[1], "alice", true), start(os.Args[1], "bob", true)
	room := makeRoom(alice, bob)
	alice.say(room, "Hello Bob", alice, bob)
	bob.say(room, "Hello Alice, çay? 🍵", alice, bob)
	recovery := alice.crossSign("alice")
	bob.crossSign("bob")
	alice.trust(bob)
	alice.backUp(room)

	phone := start(os.Args[1], "alice", false)
	must("the recovery key", phone.keys.VerifyWithRecoveryKey(ctx, recovery))
	_, verified, err := phone.keys.GetOwnVerificationStatus(ctx)
	must("the own status", err)
	if !verified {
		must("the own status", errors.New("the second device is not verified"))
	}
	phone.knows(room, bob.UserID)
	// The others hear of the second device before they write to it.
	for _, other := range []*device{alice, bob} {
		other.until("the second device", func() bool {
			known, err := other.keys.GetCachedDevices(ctx, alice.UserID)
			return err == nil && len(known.Devices) == 2
		})
	}
	bob.say(room, "to both your devices", alice, bob, phone)
	phone.say(room, "from the second device", alice, bob, phone)
	fmt.Println("mautrix-go with goolm: encrypted chat, cross-signing, a backup, a second device by recovery key: passed")
}
