//! `lightos throttle`.

use lightos_protocol::control::{Admin, AdminReply};

use super::client::Client;
use super::{Failure, ThrottleArgs};

pub(super) fn main(args: ThrottleArgs) -> Result<(), Failure> {
    let client = Client::connect(args.socket.as_deref()).map_err(Failure::failed)?;
    let order = Admin::SetDuty { tenant_id: args.tenant, permille: args.duty * 10 };
    match client.ask(&order).map_err(Failure::failed)? {
        AdminReply::DutySet(tenants) if tenants.is_empty() => println!("No programs."),
        AdminReply::DutySet(tenants) => {
            let list: Vec<_> = tenants.iter().map(u64::to_string).collect();
            println!("{} % of the time: {}", args.duty, list.join(", "));
        }
        AdminReply::Failed(message) => return Err(Failure::failed(message)),
        other => return Err(Failure::failed(format!("unexpected answer {other:?}"))),
    }
    Ok(())
}
