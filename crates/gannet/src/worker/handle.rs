//! From an event to the handler's method, and from what it returns to commands.

use std::{
    convert::Infallible,
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Method, StatusCode};

use super::{
    Worker,
    case::Case,
    local::{Local, Progress},
    request,
    respond::{Asked, respond, respond_now, write_lines},
    shared::Command,
};
use crate::{
    Body, CloseReason, Conn, Error, Handler, Handshake, Message, PacketSource, Response, Result,
    Task, TaskError, TaskId, Text, WorkerId, extend_request,
    layout::WorkerCounter,
    message::Answer,
    traces,
    wire::{
        TEXT,
        command::{self, CommandHeader, CommandKind},
        event::{EventHeader, EventKind, FAILED, REDELIVERED},
        route::Route,
    },
};

/// What every call needs.
pub(crate) struct Core<H> {
    pub(crate) handler: H,
    pub(crate) worker: Worker,
    pub(crate) local: Rc<Local>,
}

impl<H> Core<H> {
    /// The connection that an event is of.
    #[inline]
    fn conn(&self, case: &Case) -> Conn {
        Conn::new(self.worker.clone(), case.conn(), case.has(REDELIVERED))
    }
}

/// Runs the handler for one event after another. The dispatcher finishes each after it.
pub(crate) async fn handle<H: Handler>(core: Rc<Core<H>>, case: Rc<Case>) -> Infallible {
    loop {
        case.next().await;
        // Nothing is kept over the handler but what is here anyway.
        let (core, case) = (&*core, &*case);
        let handler = &core.handler;
        let outcome = match case.kind() {
            EventKind::Receive => handler.receive(core.conn(case), case.payload()).await,
            EventKind::Message if case.has(TEXT) => match Text::try_from(case.payload()) {
                Ok(text) => handler.message(core.conn(case), Message::Text(text)).await,
                Err(error) => Err(error.into()),
            },
            EventKind::Message => {
                let message = Message::Binary(case.payload());
                handler.message(core.conn(case), message).await
            }
            // It is large: pinned where it is made it is not moved, as `await` by itself would do twice.
            EventKind::Request => pin!(request(core, case)).await,
            EventKind::Connect => handler.connect(core.conn(case)).await,
            EventKind::Close => {
                let reason = CloseReason::from_u16(case.header().aux as u16);
                let reason = reason.unwrap_or(CloseReason::Reset);
                handler.close(core.conn(case), reason).await
            }
            EventKind::Open => Box::pin(open(core, core.conn(case), case)).await,
            EventKind::Packet => packet(core, case).await,
            EventKind::Task => task(core, case).await,
            EventKind::Finish => {
                let data = case.payload();
                let result = if case.has(FAILED) {
                    Err(TaskError::from_payload(&data, u16::MAX))
                } else {
                    Ok(data)
                };
                handler.finish(TaskId(case.header().aux), result).await
            }
            EventKind::Pipe => {
                let from = WorkerId(case.header().origin);
                handler.pipe_message(from, case.payload()).await
            }
            _ => Ok(()),
        };
        case.tell(outcome);
    }
}

async fn packet<H: Handler>(core: &Core<H>, case: &Case) -> Result {
    let (header, payload) = (case.header(), case.payload());
    let Some((route, len)) = Route::decode(&payload) else {
        return Err(Error::new("a datagram came without its route"));
    };
    let (worker, redelivered) = (core.worker.clone(), header.has(REDELIVERED));
    let from = PacketSource::new(worker, case.reactor(), header.origin, route, redelivered);
    core.handler.packet(from, payload.slice(len..)).await
}

async fn task<H: Handler>(core: &Core<H>, case: &Case) -> Result {
    let header = case.header();
    let task = Task {
        id: TaskId(header.aux),
        from: WorkerId(header.origin),
        data: case.payload(),
        attempts: header.attempts,
    };
    let result = match core.handler.task(task).await {
        Err(error) => {
            core.local.shared.count(WorkerCounter::Errors);
            tracing::warn!(task = header.aux, %error, "a task failed");
            Err(error.to_string())
        }
        Ok(result) => Ok(result),
    };
    traces::task_ended(&result);
    finish_task(&core.local, case, result).await
}

async fn request<H: Handler>(core: &Core<H>, case: &Case) -> Result {
    let local = &core.local;
    let mut request = request::fresh();
    if let Err(error) = request::build(&mut request, case, local) {
        drop(request);
        return refuse(core, Asked::by(case, false), error).await;
    }
    let head_only = request.method() == Method::HEAD;
    let left = {
        // Requests and responses are large: pinned where it is made and answered where it lies, neither is moved
        // once more.
        let future = pin!(Some(core.handler.request(core.conn(case), request)));
        let answering = Answering {
            future,
            local,
            case,
            head_only,
        };
        answering.await?
    };
    match left {
        None => Ok(()),
        // Most responses are whole, and find room: the others shall not make the future of all larger.
        Some(response) => {
            let asked = Asked::by(case, head_only);
            Box::pin(respond(local, asked, *response)).await
        }
    }
}

/// A handler until what it gives has been sent, or cannot be sent at once: see [`respond_now`]. Before that goes, what
/// the handler has held goes.
struct Answering<'a, F> {
    future: Pin<&'a mut Option<F>>,
    local: &'a Local,
    case: &'a Case,
    head_only: bool,
}

impl<F: Future<Output = Result<Response>>> Future for Answering<'_, F> {
    type Output = Result<Option<Box<Response>>>;

    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(future) = self.future.as_mut().as_pin_mut() else {
            return Poll::Pending;
        };
        let given = future.poll(cx);
        if given.is_ready() {
            self.future.set(None);
        }
        respond_now(self.local, self.case, self.head_only, given)
    }
}

async fn open<H: Handler>(core: &Core<H>, conn: Conn, case: &Case) -> Result {
    let (asked, id) = (Asked::by(case, false), conn.id());
    let mut request = request::fresh();
    if let Err(error) = request::build(&mut request, case, &core.local) {
        return refuse(core, asked, error).await;
    }
    extend_request(&mut request);
    let handshake = Handshake::new(request.map(drop));
    let accept = core.handler.open(conn, handshake).await?;
    match accept.answer {
        Answer::Accept(headers) => {
            let mut lines = Vec::new();
            write_lines(&headers, &mut lines);
            let header = CommandHeader::new(CommandKind::Accept, id);
            traces::answered(StatusCode::SWITCHING_PROTOCOLS);
            let command = Command::new(header, lines.into());
            Ok(core.local.shared.push(id.reactor(), command).await?)
        }
        Answer::Refuse(response) => Box::pin(respond(&core.local, asked, *response)).await,
        Answer::Invalid(what) => Err(Error::new(what)),
    }
}

async fn refuse<H>(core: &Core<H>, asked: Asked, error: request::BadRequest) -> Result {
    tracing::debug!(conn = %asked.conn, %error, "request refused");
    let mut response = Response::new(Body::from("bad request\n"));
    *response.status_mut() = StatusCode::BAD_REQUEST;
    Box::pin(respond(&core.local, asked, response)).await
}

/// The result of a task, and the end of its event, in one command.
async fn finish_task(
    local: &Rc<Local>,
    case: &Case,
    result: std::result::Result<Bytes, String>,
) -> Result {
    let (shared, reactor) = (&local.shared, case.reactor());
    if shared.lanes[reactor].epoch() != case.epoch() {
        return Ok(());
    }
    let result = result.and_then(|result| {
        let (len, max) = (result.len(), shared.largest());
        if len > max {
            Err(TaskError::TooLarge { len, max }.to_string())
        } else {
            Ok(result)
        }
    });
    let mut command = task_done(&case.header(), result);
    command.header.code = local.task_took();
    let last = local.may_finish(reactor);
    if !last {
        command.header.done = 0;
    }
    shared.push(reactor, command).await?;
    if last {
        local.set_progress(Progress::Answered);
    }
    Ok(())
}

/// The command that ends a task.
pub(crate) fn task_done(
    header: &EventHeader,
    result: std::result::Result<Bytes, String>,
) -> Command {
    let mut done = CommandHeader::new(CommandKind::TaskDone, header.conn);
    (done.aux, done.done) = (header.aux, header.seq);
    let payload = result.unwrap_or_else(|mut reason| {
        done.flags = command::FAILED;
        reason.truncate(reason.floor_char_boundary(MAX_REASON));
        reason.into()
    });
    Command::new(done, payload)
}

/// Longest reason of a failed task, in bytes.
const MAX_REASON: usize = 4 << 10;
