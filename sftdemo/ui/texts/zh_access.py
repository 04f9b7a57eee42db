"""谁可以做什么：页面上的中文。"""

ACCESS = {
    "sign_in": "登录",
    "sign_out": "退出登录",
    "sign_in_title": "以所有者身份登录",
    "sign_in_password": "密码",
    "sign_in_account": "用 Hub 账号登录",
    "sign_in_none": "此应用没有设置密码，也不能用账号登录。",
    "sign_in_back": "返回应用",
}

FAULTS = {
    "This app can't be used from here.": "不能从这里使用此应用。",
    "Only the owner of this app may chat; sign in as its owner.": "只有此应用的所有者可以对话；请以所有者身份登录。",
    "Only the owner of this app may vote; sign in as its owner.": "只有此应用的所有者可以投票；请以所有者身份登录。",
    "Only the owner of this app may evaluate; sign in as its owner.": "只有此应用的所有者可以评测；请以所有者身份登录。",
    "Only the owner of this app may train; sign in as its owner.": "只有此应用的所有者可以训练；请以所有者身份登录。",
    "Only the owner of this app may upload data; sign in as its owner.": "只有此应用的所有者可以上传数据；请以所有者身份登录。",
    "Only the owner of this app may do that; sign in as its owner.": "只有此应用的所有者可以这样做；请以所有者身份登录。",
    "This app doesn't answer under the host {host!r}; whoever runs it can allow the name by SFTDEMO_ALLOWED_HOSTS.": (
        "此应用不接受主机名 {host!r}；运行者可用 SFTDEMO_ALLOWED_HOSTS 允许它。"
    ),
    "Pages of {origin!r} can't use this app; open it in a tab of its own.": "{origin!r} 的页面不能使用此应用；请在单独的标签页中打开。",
    "Pages of other sites can't use this app; open it in a tab of its own.": "其他网站的页面不能使用此应用；请在单独的标签页中打开。",
    "Too many wrong passwords; try again in {minutes} min.": "密码错误次数过多；请在 {minutes} 分钟后重试。",
    "That isn't the password.": "密码不正确。",
    "The form is longer than {most} bytes.": "表单超过 {most} 字节。",
    "{name!r} is the name of an account; sign in to vote under it, or leave out the @.": (
        "{name!r} 是账号名；请登录后用它投票，或去掉 @。"
    ),
}
