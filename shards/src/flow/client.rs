//! What a WebSocket client says.
use crate::conn::Phase;
use crate::conn::live::Stage;
use crate::conn::outbox::Transport;
use crate::effect::Effects;
use crate::flow::mail::PutBack;
use crate::key::ConnKey;
use crate::metrics::ClientMessageKind;
use crate::shard::{Shard, Step};
use protocol::client::command::{self, Command};
use protocol::client::event::{self, ErrorCode};
use protocol::clock::Now;
use protocol::limits;
use protocol::ws::close::CloseCode;
use protocol::ws::decoder::{Decoded, Decoder, WsEvent};
use protocol::ws::encoder::{Opcode, write_close, write_frame};

/// A frame's meaning, taken out of the buffer it was read in.
enum Said {
    Command(Result<Command, command::CommandError>),
    Binary,
    Ping(Vec<u8>),
    Nothing,
    Close(Option<u16>),
    Wrong(CloseCode, &'static str),
}

impl Shard {
    /// One frame of a live WebSocket client.
    pub(crate) fn websocket_step(&mut self, now: Now, key: ConnKey, bytes: &mut [u8], effects: &mut Effects) -> Step {
        let Some(connection) = self.connections.get_mut(key) else { return Step::Gone };
        if !connection.wants_input() {
            return Step::Wait;
        }
        let Phase::Live(live) = &mut connection.phase else { return Step::Wait };
        let (used, said) = match live.decoder.decode(bytes, limits::WS_MESSAGE_BYTES_MAX) {
            Ok(Decoded::NeedMore { .. }) => return Step::Wait,
            Ok(Decoded::Frame { consumed, event }) => {
                let said = match event {
                    WsEvent::Text(text) => Said::Command(command::parse(text)),
                    WsEvent::Binary(_) => Said::Binary,
                    WsEvent::Ping(payload) => Said::Ping(payload.to_vec()),
                    WsEvent::Pong(_) | WsEvent::Fragment => Said::Nothing,
                    WsEvent::Close { code, .. } => Said::Close(code),
                };
                (consumed, said)
            }
            Err(error) => (bytes.len(), Said::Wrong(error.close_code(), error.reason())),
        };
        // A message that came in fragments is lent: it is given back now, not when the client next speaks.
        let _ = live.decoder.decode(&mut [], limits::WS_MESSAGE_BYTES_MAX);
        live.heard_at_ms = now.mono_ms();
        let may = match &said {
            Said::Command(command) => self.may_say(now, key, command.as_ref().ok()),
            Said::Binary | Said::Ping(_) => self.may_say(now, key, None),
            Said::Nothing | Said::Close(_) | Said::Wrong(..) => true,
        };
        if !may {
            return Step::Used(used);
        }
        match said {
            Said::Command(Ok(command)) => self.obey(now, key, command, effects),
            Said::Command(Err(error)) => {
                self.metrics().client_messages[ClientMessageKind::Invalid as usize].add(1);
                self.say(now, key, |out| event::write_error(out, ErrorCode::InvalidMessage, &error.0));
            }
            Said::Binary => {
                self.metrics().client_messages[ClientMessageKind::Invalid as usize].add(1);
                let message = "Binary messages are not supported";
                self.say(now, key, |out| event::write_error(out, ErrorCode::UnsupportedFormat, message));
            }
            Said::Ping(payload) => self.write_control(now, key, |out| write_frame(out, Opcode::Pong, &payload)),
            Said::Nothing => {}
            Said::Close(code) => self.client_closed(now, key, code, effects),
            Said::Wrong(code, reason) => self.close_with_reason(now, key, code, reason, effects),
        }
        Step::Used(used)
    }

    fn obey(&mut self, now: Now, key: ConnKey, command: Command, effects: &mut Effects) {
        let kind = match &command {
            Command::Subscribe { .. } => ClientMessageKind::Subscribe,
            Command::Unsubscribe { .. } => ClientMessageKind::Unsubscribe,
            Command::Ping => ClientMessageKind::Ping,
            Command::Ack { .. } => ClientMessageKind::Ack,
            Command::Refresh { .. } => ClientMessageKind::Refresh,
        };
        self.metrics().client_messages[kind as usize].add(1);
        match command {
            Command::Subscribe { channels } => self.subscribe(now, key, channels, false, effects),
            Command::Unsubscribe { channels } => self.unsubscribe(now, key, &channels, effects),
            Command::Ping => self.say(now, key, |out| out.extend_from_slice(event::PONG)),
            // While acknowledgements are off there is no answer (contract §3.4).
            Command::Ack { notification_id } => self.acknowledge(now, key, notification_id, effects),
            Command::Refresh { token } => self.refresh(now, key, &token, effects),
        }
    }

    /// The client's Close: echoed, then the socket ends (C-13).
    fn client_closed(&mut self, now: Now, key: ConnKey, code: Option<u16>, effects: &mut Effects) {
        self.unregister(now, key, effects);
        let transport = self.connections.get(key).map(|connection| connection.reads().0);
        if let Some(transport) = transport {
            self.drop_frames(key, transport);
        }
        self.write_control(now, key, |out| match code {
            Some(code) => write_close(out, CloseCode(code), ""),
            None => write_frame(out, Opcode::Close, &[]),
        });
        self.finish(now, key, effects);
    }

    /// Input of a connection that ends: only the client's Close still means something.
    pub(crate) fn closing_step(&mut self, now: Now, key: ConnKey, bytes: &mut [u8], effects: &mut Effects) -> Step {
        let Some(connection) = self.connections.get_mut(key) else { return Step::Gone };
        let Phase::Closing(closing) = &mut connection.phase else { return Step::Wait };
        let flushing = match closing.stage {
            Stage::Flushing(code) if !closing.transport.is_sse() => Some(code),
            Stage::AwaitingClose => None,
            _ => return Step::Used(bytes.len()),
        };
        let decoder: &mut Decoder = &mut closing.decoder;
        match decoder.decode(bytes, limits::WS_MESSAGE_BYTES_MAX) {
            Ok(Decoded::NeedMore { .. }) => Step::Wait,
            Ok(Decoded::Frame { consumed, event: WsEvent::Close { .. } }) => {
                if let Some(code) = flushing {
                    self.rescue_mail(now, key, PutBack::Leaving, effects);
                    self.drop_frames(key, Transport::WebSocket);
                    self.write_control(now, key, |out| write_close(out, code, ""));
                }
                self.finish(now, key, effects);
                Step::Used(consumed)
            }
            Ok(Decoded::Frame { consumed, .. }) => Step::Used(consumed),
            Err(_) => {
                self.finish(now, key, effects);
                Step::Used(bytes.len())
            }
        }
    }
}
