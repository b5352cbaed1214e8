# What receipts and notices say, in English. Amounts, dates and codes arrive formatted; days are numbers.

subject = Payment receipt No. { $number }: { $service }, { $amount }
subject-again = Copy of payment receipt No. { $number }: { $service }, { $amount }
title = Payment receipt
paid = Paid
intro = Your payment has been received. Please keep this receipt.
intro-again = This receipt was asked for once more on our site. It is a copy: you have paid once, and nothing more has been charged.
amount = { $amount } { $currency }
currency-kgs = KGS

label-number = Receipt number
label-paid-at = Date and time
label-service = Service
label-bill = Payment code
label-applicant = Applicant
label-amount = Amount
label-card = Card
label-authorization = Authorization code
label-rrn = Bank reference (RRN)
label-payment = Payment ID

service-passport = Passport
service-driving-licence = Driving licence
service-meken-card = Meken Card
service-other = State service

brand-visa = Visa
brand-mastercard = Mastercard
brand-mir = Mir
brand-unionpay = UnionPay
brand-elcart = Elcart
brand-other = Bank card

online = View the receipt online
verify = Check that this receipt is genuine
scan = Scan the code with your phone, or open:
questions = Questions? { $operator }, tel. { $phone }, { $email }
not-yours = If you did not make this payment, please tell your bank and us at once.

# Short messages, of two segments at most: every letter counts.
sms = Paid { $amount }: { $service }. Receipt { $number }: { $link }
sms-short = Paid { $amount }. Receipt: { $link }

# Notices: what is known, what to do, and what happens to the money.
unknown-subject = Your payment of { $amount } is being checked: please do not pay again
unknown-title = We are checking your payment
unknown-happened = We do not know yet whether your payment of { $amount } for bill { $bill } has gone through. We are asking the bank, and you will hear from us at this address.
unknown-money = If the payment did not go through, nothing is charged, and money held on your card is released: usually within a few days, at the latest within { $days ->
        [one] { $days } day
       *[other] { $days } days
    }. Your bank decides how long it takes.

failed-subject = Your payment of { $amount } did not go through: nothing was charged
failed-title = Nothing was charged
failed-happened = Your payment of { $amount } for bill { $bill } did not go through. Nothing was charged to your card.
declined-happened = Your payment of { $amount } for bill { $bill } was declined. Nothing was charged to your card.
failed-money = If you see this amount held on your card, it is released: usually within a few days, at the latest within { $days ->
        [one] { $days } day
       *[other] { $days } days
    }. Your bank decides how long it takes.

reversed-subject = Your payment of { $amount } was cancelled: your money is returned
reversed-title = Your money is returned to you
reversed-happened = Your payment of { $amount } for bill { $bill } was cancelled. What was held on your card or taken from it is returned to you.
reversed-money = Money usually comes back within a few days, at the latest within { $days ->
        [one] { $days } day
       *[other] { $days } days
    }. Your bank decides how long it takes.

advice-wait = Please do not pay again until you have heard from us.
advice-again = You can pay again.
advice-held = Another payment of this bill is under way. Please wait for its result, and do not pay again.
advice-paid = This bill has already been paid. You do not need to pay it again.
advice-closed = This bill can no longer be paid: it was withdrawn or is out of date. For a new one, please ask the office that issued it.

link-status = See your payment online
link-again = Pay again
